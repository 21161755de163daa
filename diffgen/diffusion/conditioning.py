"""Join the conditioning of several network calls into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import repeat

import torch
from torch import Tensor

from diffgen.errors import UsageError
from diffgen.types import Conditioning

MOST_TOKENS = 1 << 16  # tokens of contexts repeated to one length


def joined(rows: Sequence[Conditioning]) -> Conditioning:
    """All rows along the batch; each field is a tensor in all of them or None in all.

    Contexts of different lengths are repeated to their least common multiple: attention is a
    weighted mean of values, which repetition does not change. Raises UsageError if that gives too
    many tokens.
    """
    lengths = {row.context.shape[1] for row in rows}
    common = math.lcm(*lengths)
    if common > max(MOST_TOKENS, *lengths):
        raise UsageError(
            "prompts made together are too long and too different in length, "
            f"{' and '.join(map(str, sorted(lengths)))} tokens; take --batch-size 1 or a shorter "
            "negative prompt"
        )
    rows = [replace(row, context=repeated(row.context, common)) for row in rows]
    names = [f.name for f in fields(Conditioning) if getattr(rows[0], f.name) is not None]
    return Conditioning(**{name: torch.cat([getattr(r, name) for r in rows]) for name in names})


def repeated(context: Tensor, tokens: int) -> Tensor:
    """A context (B, T, D) repeated to `tokens`, a multiple of T."""
    times = tokens // context.shape[1]
    return context if times == 1 else torch.cat([*repeat(context, times)], dim=1)
