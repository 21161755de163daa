"""Unify the prefixes in a file: whole models and U-Nets alone, of LDM and of diffusers.

U-Nets are shared without the prefix that they have in whole models (GGUF, few-step U-Nets), under
ComfyUI's, or in diffusers' names; whole models with a prefix before all names, with text encoders
under those of ComfyUI, diffusers or stable-diffusion.cpp, or with the U-Net's averages alone. All
come out under the names of most whole models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from diffgen.errors import UnsupportedCheckpoint
from diffgen.models.config import Depth, UNetConfig
from diffgen.weights.keymap import COMPILED
from diffgen.weights.ldm.averages import FIRST, ROOT, only_averaged, plain_name
from diffgen.weights.ldm.names import ldm_blocks, to_ldm

T = TypeVar("T")

BARE = ("diffusion_model.", "unet.", "module.", "model.", "")  # prefixes used instead of the root
FIRST_IN_DIFFUSERS = "down_blocks.0.resnets.0.conv1.weight"
# First parts of names inside a U-Net, and marks of training beside them.
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
# The text encoders under transformers' names, and prefixes of other programs.
TEXT: Mapping[str, tuple[str, ...]] = {
    "cond_stage_model.transformer.": (
        *("text_encoders.clip_l.transformer.", "text_encoders.clip_h.transformer."),
        *("clip_l.transformer.", "text_encoder.", "te.", "te1."),
    ),
    "conditioner.embedders.1.transformer.": (
        *("text_encoders.clip_g.transformer.", "clip_g.transformer."),
        *("text_encoder_2.", "text_encoder.2.", "te2."),
    ),
}
OF_TEXT = ("cond_stage_model.", "conditioner.")


def rooted(infos: Mapping[str, T]) -> dict[str, T]:
    """The same tensors, those of a U-Net under `model.diffusion_model.` and LDM's names.

    Raises UnsupportedCheckpoint for an unsupported U-Net of diffusers.
    """
    infos = _with_encoders(_unwrapped(infos))
    if only_averaged(infos):
        return {plain_name(key) or key: info for key, info in infos.items()}
    for prefix in (ROOT, *BARE):
        if f"{prefix}{FIRST_IN_DIFFUSERS}" in infos:
            return _from_diffusers(infos, prefix)
        if prefix != ROOT and f"{prefix}{FIRST}" in infos:
            return {_under(key, prefix): info for key, info in infos.items()}
    return dict(infos)


def _unwrapped(infos: Mapping[str, T]) -> Mapping[str, T]:
    """The tensors without a prefix that training programs put before all names (`module.`)."""
    infos = {key.replace(COMPILED, ""): info for key, info in infos.items()}
    heads = {key.removesuffix(ROOT + FIRST) for key in infos if key.endswith(ROOT + FIRST)}
    if not heads or "" in heads:
        return infos
    head = min(heads)
    return {key.removeprefix(head): info for key, info in infos.items()}


def _with_encoders(infos: Mapping[str, T]) -> Mapping[str, T]:
    if any(key.startswith(OF_TEXT) for key in infos):
        return infos
    known = {other: ours for ours, others in TEXT.items() for other in others}
    prefixes = tuple(known)

    def renamed(key: str) -> str:
        if not key.startswith(prefixes):
            return key
        prefix = max((each for each in prefixes if key.startswith(each)), key=len)
        return known[prefix] + key.removeprefix(prefix)

    return {renamed(key): info for key, info in infos.items()}


def _under(key: str, prefix: str) -> str:
    name = _inside(key, prefix, TOPS)
    return key if name is None else ROOT + name


def _inside(key: str, prefix: str, tops: tuple[str, ...]) -> str | None:
    """The name inside the U-Net; None for other tensors."""
    name = key.removeprefix(prefix) if key.startswith(prefix) else ""
    return name if name.startswith(tops) else None


def _from_diffusers(infos: Mapping[str, T], prefix: str) -> dict[str, T]:
    names = {key: _inside(key, prefix, TOPS_IN_DIFFUSERS) for key in infos}
    blocks = ldm_blocks(_shape_of_names([name for name in names.values() if name]))
    return {ROOT + to_ldm(name, blocks) if name else key: infos[key] for key, name in names.items()}


def _shape_of_names(names: list[str]) -> UNetConfig:
    """The U-Net as far as its names tell: levels, blocks, and which of them have attention."""
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
