"""A U-Net that reuses the output of its lower levels (DeepCache: Ma et al., arXiv:2312.00858).

The lower levels do most of the work and change little from one step to the next, least of all at
the end: the first steps decide what the picture shows (section 3.3).
"""

from __future__ import annotations

from torch import Tensor

from diffgen.models.fast.graphs import Step
from diffgen.types import Conditioning


class DeepCache:
    """Computes the highest level in each evaluation, the lower ones in some (section 3.2).

    The lower ones run in the first few evaluations and every n-th of the others. Use one instance
    per batch and run; a change of batch size, as where guidance begins or ends, recomputes them.
    """

    def __init__(self, compute: Step, reuse: Step, *, every: int, first: int = 0) -> None:
        """The callables are a U-Net's, or graphs of them; `every` 1 reuses nothing."""
        self._compute, self._reuse = compute, reuse
        self._every, self._first = every, first
        self._kept: Tensor | None = None
        self._done = self._age = 0

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """As `UNet.forward`."""
        self._age += 1
        self._done += 1
        whole = self._done <= self._first or self._age >= self._every
        if self._kept is None or whole or len(self._kept) != len(x):
            out, self._kept = self._compute(x, t, cond)
            self._age = 0
        else:
            out, _ = self._reuse(x, t, cond, self._kept)
        return out
