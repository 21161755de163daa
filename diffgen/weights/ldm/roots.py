"""One way of writing the names in a file: whole models and U-Nets alone, of LDM and of diffusers.

U-Nets are shared without the prefix that they have in whole models (GGUF, few-step U-Nets), under
ComfyUI's, or in diffusers' names; they come out as whole models have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from diffgen.errors import UnsupportedCheckpoint
from diffgen.models.config import Depth, UNetConfig
from diffgen.weights.files import TensorInfo
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

Infos = Mapping[str, TensorInfo]

ROOT = "model.diffusion_model."
BARE = ("diffusion_model.", "unet.", "")  # what is written instead of it
FIRST = "input_blocks.0.0.weight"
FIRST_IN_DIFFUSERS = "down_blocks.0.resnets.0.conv1.weight"
# How names inside a U-Net begin; marks of training stand beside them.
TOPS = ("input_blocks.", "middle_block.", "output_blocks.", "out.", "time_embed.", "label_emb.")
TOPS_IN_DIFFUSERS = (
    "conv_in.",
    "time_embedding.",
    "add_embedding.",
    "down_blocks.",
    "mid_block.",
    "up_blocks.",
    "conv_norm_out.",
    "conv_out.",
)


def rooted(infos: Infos) -> dict[str, TensorInfo]:
    """The same tensors, those of a U-Net under `model.diffusion_model.` and LDM's names."""
    for prefix in (ROOT, *BARE):
        if f"{prefix}{FIRST_IN_DIFFUSERS}" in infos:
            return _from_diffusers(infos, prefix)
        if prefix != ROOT and f"{prefix}{FIRST}" in infos:
            return {_under(key, prefix): info for key, info in infos.items()}
    return dict(infos)


def _under(key: str, prefix: str) -> str:
    name = _inside(key, prefix, TOPS)
    return key if name is None else ROOT + name


def _inside(key: str, prefix: str, tops: tuple[str, ...]) -> str | None:
    """The name inside the U-Net; None for what is not of it."""
    name = key.removeprefix(prefix) if key.startswith(prefix) else ""
    return name if name.startswith(tops) else None


def _from_diffusers(infos: Infos, prefix: str) -> dict[str, TensorInfo]:
    names = {key: _inside(key, prefix, TOPS_IN_DIFFUSERS) for key in infos}
    blocks = ldm_blocks(_shape_of_names([name for name in names.values() if name]))
    return {ROOT + to_ldm(name, blocks) if name else key: infos[key] for key, name in names.items()}


def _shape_of_names(names: list[str]) -> UNetConfig:
    """As much of the U-Net as its names tell: levels, blocks, and which of them attend."""
    levels = _count(names, r"down_blocks\.(\d+)\..+")
    if levels != _count(names, r"up_blocks\.(\d+)\..+"):
        raise UnsupportedCheckpoint("its U-Net does not go up as many levels as down")
    blocks = tuple(_count(names, rf"down_blocks\.{n}\.resnets\.(\d+)\..+") for n in range(levels))
    up = [_depth(names, f"up_blocks.{levels - 1 - n}") for n in range(levels)]
    return UNetConfig(
        channels=(32,) * levels,
        blocks=blocks,
        depth=tuple(_depth(names, f"down_blocks.{n}") for n in range(levels)),
        up_depth=tuple(up),
        num_heads=(1,) * levels,
    )


def _depth(names: list[str], block: str) -> Depth:
    return 1 if any(name.startswith(f"{block}.attentions.") for name in names) else 0


def _count(names: list[str], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.fullmatch(pattern, name))})
