"""Copy the JSON and vocabulary files of a model folder, for changed networks."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffgen.jsonfile import JsonObject
from diffgen.models.config import ModelConfig
from diffgen.weights.diffusers.layout import write_choices, write_json

# The components of a model folder; only the autoencoder is optional.
WRITTEN = {"unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"}
# Components optional in every pipeline of diffusers, and the pipelines to use without others.
EXTRAS = {"vae", "safety_checker", "feature_extractor", "image_encoder", "watermarker"}
PLAIN = {"sd": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
INDEX = ".index."  # in the names of JSON files that list shards
VOCABULARY = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def copy_configs(base: Path, folder: Path, config: ModelConfig) -> None:
    """The JSON and vocabulary files of a model folder, for networks of this config.

    Components that diffgen does not write, such as a safety checker, become null in
    model_index.json; a chosen autoencoder and prediction replace the base's own.
    """
    written = {*WRITTEN, "vae"} if config.vae else WRITTEN
    index = JsonObject.read(base / "model_index.json").data
    parts = {name for name, value in index.items() if isinstance(value, list | tuple)}
    for source in [path for name in sorted(parts & written) for path in (base / name).glob("*")]:
        if source.suffix in (".json", ".txt") and INDEX not in source.name:
            target = folder / source.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    write_json(folder / "model_index.json", _without(index, parts - written, config))
    write_choices(folder, config)


def _without(
    index: Mapping[str, Any], absent: Collection[str], config: ModelConfig
) -> dict[str, Any]:
    """A model_index.json without these components, and with a pipeline that allows it."""
    out = {**index, **{name: [None, None] for name in sorted(absent)}}
    if "safety_checker" in absent:
        out["requires_safety_checker"] = False
    if not EXTRAS.issuperset(name for name in absent if any(index[name])):
        out["_class_name"] = PLAIN["sdxl" if config.is_xl else "sd"]
    return out


def copy_vocabulary(source: Path, folder: Path, *, max_tokens: int, pad: str | None = None) -> None:
    """A tokenizer's files, for a text encoder of `max_tokens`; `pad` replaces its padding."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in VOCABULARY:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    file = folder / "tokenizer_config.json"
    options = JsonObject.read(file).data if file.exists() else {"tokenizer_class": "CLIPTokenizer"}
    padding = {"pad_token": pad} if pad else {}
    write_json(file, {**options, "model_max_length": max_tokens, **padding})
