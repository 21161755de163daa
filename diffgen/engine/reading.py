"""Read how pictures were made, by whichever program; the files are not trusted.

diffgen's own record comes first, then tables of other programs, then A1111's text, which most
programs write. sd-parsers, if installed, reads ComfyUI's graphs and what older InvokeAIs wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.engine.graphs import read_graph, unread_nodes, with_prompt
from diffgen.engine.others import PictureSettings, read_others
from diffgen.engine.texts import read_texts
from diffgen.errors import ConfigError, UsageError
from diffgen.jsonfile import parse_json

# A1111's grammar: a pair of the last line, and how many pairs make it a line of settings.
# JSON among them stands unquoted.
PAIR = re.compile(
    r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|\{[^{}]*\}(?=,|$)|\[[^\[\]]*\](?=,|$)|[^,]*)(?:,|$)'
)
LEAST_PAIRS = 3
NEGATIVE = "Negative prompt:"
# Who else writes it, by what stands behind "Version:".
WRITERS = ("Fooocus", "stable-diffusion.cpp", "ComfyUI")


def read_settings(path: Path) -> PictureSettings:
    """How the picture in a file was made.

    Raises UsageError for a file that is no picture or has no metadata known here.
    """
    texts = read_graph(path) if path.suffix.lower() == ".json" else read_texts(path)
    if own := _own_record(texts.get("diffgen", ""), path):
        return PictureSettings("diffgen", own["prompt"], own.get("negative"), record=own)
    if found := read_others(texts):
        return found
    if found := parse_parameters(texts.get("parameters", "")):
        return found
    if found := _by_sd_parsers(texts):
        return found
    said = f" (it has {', '.join(sorted(texts))})" if texts else ""
    raise UsageError(f"{path} does not say how it was made, or not in words known here{said}")


def parse_parameters(text: str) -> PictureSettings | None:
    """Parse A1111's text; None if its last line holds no settings."""
    lines = [line.strip() for line in text.strip().split("\n")]
    pairs = PAIR.findall(lines[-1])
    if len(pairs) < LEAST_PAIRS:
        return None
    parts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in lines[:-1]:
        if line.startswith(NEGATIVE):
            negative, line = True, line.removeprefix(NEGATIVE).strip()
        parts[negative].append(line)
    named = {name.strip(): _unquoted(value) for name, value in pairs}
    prompt, negative_prompt = ("\n".join(parts[which]) for which in (False, True))
    version = named.get("Version", "")
    source = next((program for program in WRITERS if program in version), "A1111")
    return PictureSettings(source, prompt, negative_prompt or None, named)


def _own_record(text: str, path: Path) -> dict[str, Any] | None:
    if not text:
        return None
    with suppress(ConfigError):
        record = parse_json(text, str(path))
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):
            return record
    return None


def _unquoted(value: str) -> str:
    value = value.strip()
    if value.startswith('"'):
        with suppress(ConfigError):
            return str(parse_json(value, "a quoted value"))
    return value


def _by_sd_parsers(texts: Mapping[str, str]) -> PictureSettings | None:
    """The result of sd-parsers, which never gets texts over the limit."""
    try:
        from sd_parsers import parsers
    except ImportError:
        return None
    texts = with_prompt(texts)
    for kind in (parsers.ComfyUIParser, parsers.InvokeAIParser):
        with suppress(Exception):  # it lets any exception of its parsers through
            info = kind().parse({"workflow": '{"links": []}'} | dict(texts))
            if info and info.samplers:
                found = _from_sd_parsers(kind.__name__.removesuffix("Parser"), info)
                unread = unread_nodes(texts) if kind is parsers.ComfyUIParser else ""
                return replace(found, named={**found.named, "nodes": unread}) if unread else found
    return None


def _from_sd_parsers(source: str, info: Any) -> PictureSettings:
    sampler = info.samplers[0]
    named = {str(name): str(value) for name, value in sampler.parameters.items()}
    named |= {"sampler": str(sampler.name)} if sampler.name else {}
    if sampler.model and sampler.model.name:
        named["model"] = str(sampler.model.name)
    tables = [info.metadata, *(each for some in info.metadata.values() for each in _tables(some))]
    for name in ("width", "height", "steps"):
        values = (table[name] for table in tables if isinstance(table.get(name), int | float))
        if name not in named and (value := next(values, None)) is not None:
            named[name] = str(value)
    prompt, negative = (
        ", ".join(str(each.value) for each in some)
        for some in (sampler.prompts, sampler.negative_prompts)
    )
    return PictureSettings(source, prompt, negative or None, named)


def _tables(value: Any) -> list[dict[str, Any]]:
    """The tables in sd-parsers' result for other ComfyUI nodes."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
