"""ComfyUI's graphs: what it is sent to make a picture, and what its editor saves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, UsageError
from diffgen.jsonfile import parse_json, read_text

GRAPH_AT_MOST = 16 << 20  # bytes
# The editor saves the values of a node's fields in this order. None is what becomes of the seed
# behind a picture, which not every version has.
FIELDS: Mapping[str, tuple[str | None, ...]] = {
    "KSampler": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", None, "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
}
AFTERWARDS = ("fixed", "randomize", "increment", "decrement")
# Nodes that are read, or that change no picture.
READ = {*FIELDS, "VAEDecode", "SaveImage", "PreviewImage", "Note", "MarkdownNote", "Reroute"}


def read_graph(path: Path) -> dict[str, str]:
    """A graph in a file of its own, as the texts of a picture. Raises UsageError."""
    try:
        found = parse_json(read_text(path, at_most=GRAPH_AT_MOST), str(path))
    except ConfigError as error:
        raise UsageError(str(error)) from error
    inner = found.get("prompt") if isinstance(found, dict) else None
    graph = inner if isinstance(inner, dict) else found
    kind = "workflow" if isinstance(graph, dict) and "nodes" in graph else "prompt"
    return {kind: json.dumps(graph)}


def with_prompt(texts: Mapping[str, str]) -> Mapping[str, str]:
    """The texts with what ComfyUI would have been sent, where only the editor's graph is there."""
    if "prompt" in texts or "workflow" not in texts:
        return texts
    with suppress(ConfigError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        graph = parse_json(texts["workflow"], "the workflow")
        links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
        sent = {str(node["id"]): _sent(node, links) for node in graph["nodes"]}
        return {**texts, "prompt": json.dumps(sent)}
    return texts


def unread_nodes(texts: Mapping[str, str]) -> str:
    """The kinds of nodes of a graph that may change a picture and are not read here."""
    with suppress(ConfigError, AttributeError, TypeError):
        nodes = parse_json(texts["prompt"], "the prompt").values()
        kinds = {str(node.get("class_type")) for node in nodes if isinstance(node, dict)}
        return ", ".join(sorted(kinds - READ))
    return ""


def _sent(node: Mapping[str, Any], links: Mapping[Any, list[Any]]) -> dict[str, Any]:
    """A node as it is sent: its fields by name, and where each input comes from."""
    values = list(node.get("widgets_values") or ())
    inputs: dict[str, Any] = {}
    for name in FIELDS.get(node["type"], ()):
        if name is None:
            if values and values[0] in AFTERWARDS:
                values.pop(0)
        elif values:
            inputs[name] = values.pop(0)
    for entry in node.get("inputs") or ():
        if entry.get("link") in links:
            inputs[entry["name"]] = links[entry["link"]]
    return {"class_type": node["type"], "inputs": inputs}
