"""Averaged weights (EMA) of a U-Net, whose names in LDM's files have no dots."""

from __future__ import annotations

import re
from collections.abc import Collection

EMA = "model_ema."
ROOT = "model.diffusion_model."
FIRST = "input_blocks.0.0.weight"
# A list entry is its number and, of one digit, the layer's number within it.
ENTRY = re.compile(r"(input_blocks|output_blocks)(\d+)(\d)")
PIECE = re.compile(
    r"transformer_blocks\d+?(?=\D)|middle_block|time_embed|label_emb|cond_proj|in_layers|out_layers"
    r"|emb_layers|skip_connection|proj_in|proj_out|to_[qkv]|to_out|attn[12]|norm[123]?|ff|net|proj"
    r"|op|conv|out|weight|bias|\d"
)


def averaged_name(name: str) -> str:
    """The name of a tensor's average; `name` is the tensor's in a whole model."""
    return EMA + name.removeprefix("model.").replace(".", "")


def only_averaged(keys: Collection[str]) -> bool:
    """Whether a file has only the averages of a U-Net's weights."""
    return ROOT + FIRST not in keys and averaged_name(ROOT + FIRST) in keys


def plain_name(key: str) -> str | None:
    """The name of the averaged tensor; None if it is not a U-Net's."""
    short = key.removeprefix(f"{EMA}diffusion_model")
    if short == key:
        return None
    entry = ENTRY.match(short)
    rest = short[entry.end() :] if entry else short
    pieces = PIECE.findall(rest)
    if not pieces or "".join(pieces) != rest:
        return None
    numbered = (re.sub(r"(?<=transformer_blocks)(?=\d)", ".", piece) for piece in pieces)
    return ROOT + ".".join([*(entry.groups() if entry else ()), *numbered])
