"""Find the weights of a component in a folder in diffusers layout."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from diffgen.errors import ConfigError, WeightsError, shown, some
from diffgen.jsonfile import JsonObject
from diffgen.types import Component
from diffgen.weights.files import PICKLE_SUFFIXES, refuse_pickle

logger = logging.getLogger("diffgen")

STEMS: dict[Component, str] = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
# Full precision can be cast to every format; the weights before averaging come last.
FILE_NAME = re.compile(r"[^/\\\x00-\x1f\ud800-\udfff]{1,200}\.safetensors")
PART = re.compile(r"-\d{5}-of-\d{5}")
VARIANTS = ("", ".fp16", ".bf16", ".non_ema")


def folder_name(part: str, *, is_refiner: bool) -> str:
    """The folder of a component or a tokenizer: a refiner's one encoder is the second of XL."""
    return f"{part}_2" if is_refiner and part in ("text_encoder", "tokenizer") else part


def weight_files(folder: Path, component: Component) -> list[Path]:
    """The safetensors files of a component: one, or the shards that its index names.

    A single file under another name is accepted with a warning. Raises WeightsError if there are
    none or a shard is missing, ConfigError for a bad index.
    """
    for candidate in candidates(STEMS[component]):
        path = folder / candidate
        if path.is_file():
            return _shards(path) if path.suffix == ".json" else [path]
    others = [path for path in sorted(folder.glob("*")) if path.suffix.lower() == ".safetensors"]
    if any(PART.search(path.stem) for path in others):
        raise WeightsError(
            f"{folder} has weights in parts, but not the .index.json that names them; is the "
            "download complete?"
        )
    if len(others) == 1:
        logger.warning("%s: the only weights there, which are taken", others[0])
        return others
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            refuse_pickle(path)
    raise WeightsError(
        f"{folder} has no weights: expected {STEMS[component]}.safetensors there; is the download "
        "complete?"
    )


def candidates(stem: str, variant: str | None = None) -> Iterator[str]:
    """The possible names of weights, best first; `variant` comes before all others."""
    asked = [] if variant is None else [f".{variant}"]
    for variant in dict.fromkeys([*asked, *VARIANTS]):
        yield f"{stem}{variant}.safetensors"
        yield f"{stem}.safetensors.index{variant}.json"
        if variant:
            yield f"{stem}{variant}.safetensors.index.json"


def _shards(index: Path) -> list[Path]:
    weight_map = JsonObject.read(index).table("weight_map")
    if not weight_map:
        raise ConfigError(f'{index}: "weight_map" should name the file of each tensor')
    for name in weight_map.values():
        # No path: an untrusted index must not reach files outside its folder.
        if not (isinstance(name, str) and FILE_NAME.fullmatch(name)):
            raise ConfigError(
                f'{index}: "weight_map" should name .safetensors files beside it, not {shown(name)}'
            )
    shards = [index.parent / name for name in sorted(set(weight_map.values()))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise WeightsError(
            f"{index.parent} lacks {some(missing)}, {len(missing)} of the {len(shards)} parts "
            f"that {index.name} names; is the download complete?"
        )
    return shards
