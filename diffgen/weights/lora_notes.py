"""A LoRA file's kind, ranks, layers and its trainer's notes.

Keys of the metadata: sd-scripts (`ss_...`) and ModelSpec.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from diffgen.errors import ConfigError
from diffgen.jsonfile import parse_json
from diffgen.weights.files import TensorInfo

# Parts of a key -> the kind of adapter; the first match counts.
KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "boft_": "BOFT",
    "oft_": "OFT",
    "ia3_l": "IA3",
    ".set_weight": "whole weights",
    "on_input": "IA3",
    "b1.weight": "GLoRA",
    "lora_mid": "LoCon, Tucker",
    ".diff": "full difference",
}
DOWN = ("lora_down.weight", "lora_A.weight", "lora.down.weight", "lora_A.default.weight")
TEXT = ("lora_te", "text_encoder", "lora_prior_te")
TAGS_SHOWN = 10
NOTED = {
    "base": ("ss_sd_model_name", "ss_base_model_version", "modelspec.architecture"),
    "network": ("ss_network_module",),
    "title": ("modelspec.title", "ss_output_name"),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "trigger": ("modelspec.trigger_phrase",),
}


def lora_notes(infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> dict[str, Any]:
    """Kind, ranks, layers for the U-Net and for text encoders, base model and common tags."""
    found: dict[str, Any] = {"kind": _kind(infos), "ranks": _ranks(infos)}
    stems = {key.partition(".")[0] if key.startswith("lora_") else _stem(key) for key in infos}
    text = {stem for stem in stems if stem.startswith(TEXT)}
    found |= {"unet_layers": len(stems - text), "text_layers": len(text)}
    for name, keys in NOTED.items():
        values = [metadata[key] for key in keys if metadata.get(key) not in (None, "", "None")]
        if values:
            found[name] = values[0]
    if tags := _tags(metadata.get("ss_tag_frequency", "")):
        found["tags"] = tags
    return found


def _kind(infos: Mapping[str, TensorInfo]) -> str:
    for mark, kind in KINDS.items():
        if any(mark in key for key in infos):
            return kind
    down = [info for key, info in infos.items() if key.endswith(DOWN)]
    return "LoCon" if any(info.shape[2:] not in ((), (1, 1)) for info in down) else "LoRA"


def _ranks(infos: Mapping[str, TensorInfo]) -> list[int]:
    """The ranks that occur, the most frequent first."""
    found = Counter(i.shape[0] for key, i in infos.items() if key.endswith(DOWN) and i.shape)
    return sorted(found, key=lambda rank: (-found[rank], -rank))


def _stem(key: str) -> str:
    for mark in (".lora_", "_lora.", ".lora.", ".alpha", ".hada_", ".lokr_", ".dora_", ".diff"):
        key = key.partition(mark)[0]
    return key


def _tags(text: str) -> list[str]:
    """The most frequent caption tags of all folders; none if unreadable."""
    counts: Counter[str] = Counter()
    with suppress(ConfigError, ValueError, AttributeError, TypeError):
        for folder in parse_json(text, "ss_tag_frequency").values():
            counts.update({str(tag).strip(): int(number) for tag, number in folder.items()})
    return [tag for tag, _ in counts.most_common(TAGS_SHOWN)]
