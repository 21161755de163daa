"""A U-Net that reuses what its lower levels made (DeepCache: Ma et al., arXiv:2312.00858).

From one step to the next the lower levels change little, and they are where most of the work is.
"""

from __future__ import annotations

from torch import Tensor

from diffgen.models.graphs import Step
from diffgen.types import Conditioning


class DeepCache:
    """Computes the lower levels in every n-th evaluation and the highest in each (section 3.2).

    For one batch from its first evaluation to its last. A batch of another size, as where
    guidance begins or ends, has them computed anew.
    """

    def __init__(self, compute: Step, reuse: Step, *, every: int) -> None:
        """The steps are a U-Net's, or graphs of them; `every` 1 reuses nothing."""
        self._compute, self._reuse, self._every = compute, reuse, every
        self._kept: Tensor | None = None
        self._age = 0

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """As `UNet.forward`."""
        self._age += 1
        if self._kept is None or self._age >= self._every or len(self._kept) != len(x):
            out, self._kept = self._compute(x, t, cond)
            self._age = 0
        else:
            out, _ = self._reuse(x, t, cond, self._kept)
        return out
