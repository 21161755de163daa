"""Random numbers of training, as a pure function of (seed, step, picture).

A picture meets the same timestep and noise whichever process handles it and in whichever part of
an accumulated batch it comes, and a resumed run needs no generator state to go on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draws:
    """One CPU generator per picture of a batch."""

    generators: tuple[torch.Generator, ...]
    device: torch.device

    @classmethod
    def of(cls, key: tuple[int | str, ...], indices: Sequence[int], device: torch.device) -> Self:
        """The generators of pictures `indices`; `key` is the seed and the step."""
        return cls(tuple(_generator((*key, index)) for index in indices), device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """(B, *shape) float32, unit Gaussian."""
        rows = [torch.randn(tuple(shape), generator=g) for g in self.generators]
        return torch.stack(rows).to(self.device)

    def uniform(self) -> Tensor:
        """(B,) float32 in [0, 1)."""
        rows = [torch.rand((), generator=g) for g in self.generators]
        return torch.stack(rows).to(self.device)


def _generator(key: tuple[int | str, ...]) -> torch.Generator:
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    # manual_seed takes what fits a signed number.
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
