"""The Gaussian numbers of a CUDA GPU, computed on any device.

Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with a seed
as key, a draw's number and an element's index as counter; two of the four words become one Gaussian
by Box and Muller. torch.randn draws so on a GPU, if a draw has no more elements than the GPU has
threads; A1111 does on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

Words = tuple["NDArray[Any]", "NDArray[Any]", "NDArray[Any]", "NDArray[Any]"]

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85  # of a Weyl sequence
ROUNDS = 10
MASK = 0xFFFFFFFF


class PhiloxDraws:
    """The draws of one image."""

    def __init__(self, seed: int) -> None:
        self._seed, self._number = seed, 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The next draw, float32, on the CPU."""
        import numpy as np

        index = np.arange(math.prod(shape), dtype=np.uint64)
        zero = np.zeros_like(index)
        words = philox((zero + np.uint64(self._number), zero, index, zero), self._seed)
        self._number += 1
        # The constants are single floats, what is computed with them is not, as in A1111.
        unit = np.float64(np.float32(2.0**-32))
        turn = np.float64(np.float32(2.0**-32 * 2.0 * math.pi))
        radius = np.sqrt(-2.0 * np.log(words[0] * unit + unit / 2.0))
        normal = radius * np.sin(words[1] * turn + turn / 2.0)
        return torch.from_numpy(normal.astype(np.float32)).reshape(tuple(shape))


def philox(counter: Words, seed: int) -> Words:
    """Four 32-bit words for each counter of four, all held as uint64 arrays of one shape."""
    import numpy as np

    mask, half = np.uint64(MASK), np.uint64(32)
    low, high = seed & MASK, seed >> 32
    a, b, c, d = counter
    for _ in range(ROUNDS):
        first, second = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
        a, b = (second >> half) ^ b ^ np.uint64(low), second & mask
        c, d = (first >> half) ^ d ^ np.uint64(high), first & mask
        low, high = (low + KEY_STEPS[0]) & MASK, (high + KEY_STEPS[1]) & MASK
    return a, b, c, d
