"""Conditioning of several networks' calls as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch

from diffgen.types import Conditioning


def joined(rows: Sequence[Conditioning]) -> Conditioning:
    """All rows along the batch; a field is a tensor in all of them or None in all."""
    names = [f.name for f in fields(Conditioning) if getattr(rows[0], f.name) is not None]
    return Conditioning(**{name: torch.cat([getattr(r, name) for r in rows]) for name in names})
