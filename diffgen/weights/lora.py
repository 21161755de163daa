"""LoRA files: how they name the layers they change, written and read back.

kohya: `lora_unet_down_blocks_0_..._to_q.lora_down.weight`, `lora_up.weight` and `alpha`; SDXL's
U-Net goes by its LDM names there. PEFT, as diffusers saves it: `unet.down_blocks.0....lora_A.weight`
and `lora_B.weight`, whose alpha is the rank. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from diffgen.errors import UnsupportedCheckpoint, WeightsError
from diffgen.jsonfile import parse_json
from diffgen.models.config import ModelConfig
from diffgen.types import Component
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.files import LazyTensors, Shape, open_tensors, read_metadata, save_tensors
from diffgen.weights.ldm import ldm_blocks, to_ldm

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffgen.models.lora import LoraDelta

Layout: TypeAlias = Literal["kohya", "peft"]
Layer: TypeAlias = tuple[Component, str]  # by its canonical name
Part: TypeAlias = Literal["down", "up", "alpha"]
Deltas: TypeAlias = "Mapping[Component, Mapping[str, LoraDelta]]"

SUFFIXES: Mapping[Layout, Mapping[Part, str]] = {
    "kohya": {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"},
    "peft": {"down": "lora_A.weight", "up": "lora_B.weight"},
}
TABLES = ("token_embedding", "position_embedding")  # matrices, but of no layer that LoRA knows
NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class LoraRef:
    """A LoRA file, and how much of it to apply: 1 as it was trained, 0 nothing."""

    path: Path
    weight: float = 1.0


def save_lora(
    path: Path,
    deltas: Deltas,
    config: ModelConfig,
    *,
    layout: Layout,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Write the deltas for the layers of a model of this config as one safetensors file.

    PEFT files have no place for alpha that every program reads, so B holds the scale there.
    """
    import torch

    flat = {(part, name): delta for part, named in deltas.items() for name, delta in named.items()}
    stems = _stems(flat, config, layout)
    tensors: dict[str, Tensor] = {}
    for layer, given in flat.items():
        delta = given if layout == "kohya" else given.with_alpha(given.rank)
        parts: dict[Part, Tensor] = {
            "down": delta.down.to("cpu", dtype),
            "up": delta.up.to("cpu", dtype),
            "alpha": torch.tensor(delta.alpha),
        }
        for part, suffix in SUFFIXES[layout].items():
            # Channels-last memory cannot be written as it is.
            tensors[f"{stems[layer]}.{suffix}"] = parts[part].contiguous()
    save_tensors(tensors, path, metadata)


def read_lora(path: Path, checkpoint: Checkpoint) -> Deltas:
    """The deltas in a file, by component and canonical name of the layer.

    Raises WeightsError for a file that is missing or damaged, is for another model, or holds
    anything besides; UnsupportedCheckpoint for one whose alphas are kept as PEFT's metadata.
    """
    from diffgen.models.lora import LoraDelta

    tensors = open_tensors([path])
    shapes = dict(_layers(checkpoint))
    found = _matched(path, tensors, shapes, checkpoint.config)
    deltas: dict[Component, dict[str, LoraDelta]] = {}
    for (component, layer), keys in found.items():
        _check_shapes(path, layer, shapes[component, layer], keys, tensors)
        down, up = tensors[keys["down"]], tensors[keys["up"]]
        alpha = float(tensors[keys["alpha"]]) if "alpha" in keys else float(len(down))
        deltas.setdefault(component, {})[layer] = LoraDelta(down, up, alpha)
    return deltas


def _stems(layers: Iterable[Layer], config: ModelConfig, layout: Layout) -> dict[Layer, str]:
    """What the names of a layer's tensors begin with."""
    if layout == "peft":
        return {(component, layer): f"{component}.{layer}" for component, layer in layers}
    sdxl = config.family == "sdxl"
    prefixes: dict[Component, str] = {
        "unet": "lora_unet",
        "text_encoder": "lora_te1" if sdxl else "lora_te",
        "text_encoder_2": "lora_te2",
    }
    blocks = ldm_blocks(config.unet) if sdxl else {}
    return {
        (component, layer): f"{prefixes[component]}_{name.replace('.', '_')}"
        for component, layer in layers
        for name in (to_ldm(layer, blocks) if component == "unet" else layer,)
    }


def _layers(checkpoint: Checkpoint) -> Iterator[tuple[Layer, Shape]]:
    """The linear layers and convolutions of a model, and the shapes of their weights."""
    for component, tensors in checkpoint.tensors.items():
        for name, info in tensors.infos.items():
            layer, is_matrix = name.removesuffix(".weight"), len(info.shape) in (2, 4)
            if component != "vae" and layer != name and is_matrix and not layer.endswith(TABLES):
                yield (component, layer), info.shape


def _matched(
    path: Path, tensors: LazyTensors, layers: Iterable[Layer], config: ModelConfig
) -> dict[Layer, dict[Part, str]]:
    """The keys of each layer that the file changes. Raises WeightsError for any other key."""
    layout: Layout = "kohya" if any(key.startswith("lora_") for key in tensors) else "peft"
    table = {
        f"{stem}.{suffix}": (layer, part)
        for layer, stem in _stems(layers, config, layout).items()
        for part, suffix in SUFFIXES[layout].items()
    }
    unknown = [key for key in tensors if key not in table]
    if len(unknown) == len(tensors):
        raise WeightsError(f"{path} matches nothing in this model{_such_as(unknown)}.")
    if unknown:
        raise WeightsError(
            f"{path} has {len(unknown)} tensors that this model has no place for"
            f"{_such_as(unknown)}; it was made for another model or in another layout."
        )
    if layout == "peft":
        _refuse_other_alphas(path)
    found: dict[Layer, dict[Part, str]] = {}
    for key in tensors:
        layer, part = table[key]
        found.setdefault(layer, {})[part] = key
    return found


def _such_as(keys: list[str]) -> str:
    return f": {', '.join(keys[:NAMED_AT_MOST])}" + (", ..." if len(keys) > NAMED_AT_MOST else "")


def _refuse_other_alphas(path: Path) -> None:
    text = read_metadata(path).get("lora_adapter_metadata", "{}")
    options = parse_json(text, f"{path}: lora_adapter_metadata")
    if not isinstance(options, dict):
        raise WeightsError(f"{path}: lora_adapter_metadata should hold a JSON object")
    for name, alpha in options.items():
        if name.endswith("lora_alpha") and alpha != options.get(name[: -len("lora_alpha")] + "r"):
            raise UnsupportedCheckpoint(
                f"{path} keeps its alpha, {alpha}, in lora_adapter_metadata, which is not read yet."
            )


def _check_shapes(
    path: Path, layer: str, shape: Shape, keys: Mapping[Part, str], tensors: LazyTensors
) -> None:
    if not {"down", "up"} <= keys.keys():
        raise WeightsError(f"{path} is incomplete: half of the adapter of {layer} is missing.")
    down, up = (tensors.infos[keys[part]].shape for part in ("down", "up"))
    rank = down[0] if down else 0
    expected = (rank, *shape[1:]), (shape[0], rank, *[1] * len(shape[2:]))
    alpha = tensors.infos[keys["alpha"]].shape if "alpha" in keys else ()
    if prod(alpha) != 1:
        raise WeightsError(f"{path}: the alpha of {layer} should be one number, not {alpha}")
    if rank < 1 or (down, up) != expected:
        raise WeightsError(
            f"{path} does not fit this model: {layer} is {shape}, and the adapter's shapes are "
            f"{down} and {up}."
        )
