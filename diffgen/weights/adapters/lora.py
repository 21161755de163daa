"""Write LoRA files in kohya's or PEFT's layout.

kohya: `lora_unet_down_blocks_0_..._to_q.lora_down.weight`, `lora_up.weight` and `alpha`, with LDM
names for SDXL's U-Net. PEFT, as diffusers saves it: `unet.down_blocks.0....lora_A.weight` and
`lora_B.weight`, whose alpha is the rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from diffgen.models.config import ModelConfig
from diffgen.types import Component
from diffgen.weights.adapters.names import Layer
from diffgen.weights.files import save_tensors
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffgen.models.lora import LoraDelta

Layout: TypeAlias = Literal["kohya", "peft"]
Part: TypeAlias = Literal["down", "up", "alpha"]

SUFFIXES: Mapping[Layout, Mapping[Part, str]] = {
    "kohya": {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"},
    "peft": {"down": "lora_A.weight", "up": "lora_B.weight"},
}


def save_lora(
    path: Path,
    deltas: Mapping[Component, Mapping[str, LoraDelta]],
    config: ModelConfig,
    *,
    layout: Layout,
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """Write the deltas for the layers of a model of this config as one safetensors file.

    Not every program reads an alpha in PEFT files, so there B includes the scale.
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


def _stems(layers: Iterable[Layer], config: ModelConfig, layout: Layout) -> dict[Layer, str]:
    """The prefixes of a layer's tensor names."""
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
