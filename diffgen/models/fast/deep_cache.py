"""A U-Net that reuses what its lower levels made (DeepCache: Ma et al., arXiv:2312.00858).

From one step to the next the lower levels change little, and they are where most of the work is.
Least at the end: what the picture shows is settled in the first steps (section 3.3).
"""

from __future__ import annotations

from torch import Tensor

from diffgen.models.fast.graphs import Step
from diffgen.types import Conditioning


class DeepCache:
    """Computes the highest level in each evaluation, the lower ones in some (section 3.2).

    The lower ones are computed in the first few evaluations and every n-th of the others. For one
    batch from its first evaluation to its last; a batch of another size, as where guidance begins
    or ends, has them computed anew.
    """

    def __init__(self, compute: Step, reuse: Step, *, every: int, first: int = 0) -> None:
        """The steps are a U-Net's, or graphs of them; `every` 1 reuses nothing."""
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
