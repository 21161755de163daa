"""Conditioning over a run, from the first noise level to the last.

A prompt may change over a run and may be composed of several; each prompt of a batch in its own
way. A `Guide` holds one picture's conditioning; `Joined` batches several at any noise level.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffgen.device import send
from diffgen.diffusion.conditioning import joined
from diffgen.errors import UsageError
from diffgen.types import Conditioning

KEPT = 8  # joined batches in memory, for prompts that alternate


@dataclass(frozen=True, slots=True)
class Course:
    """One prompt over a run, with its weight among those that AND joins.

    `stages` are (floor, conditioning of one picture): each applies to noise levels above its floor
    and up to the floor before. The last one's floor is below all levels.
    """

    stages: tuple[tuple[float, Conditioning], ...]
    weight: float = 1.0

    @classmethod
    def constant(cls, cond: Conditioning) -> Course:
        """A course with the same conditioning at every level."""
        return cls(((-1.0, cond),))

    def stage(self, sigma: float) -> int:
        """The stage at a noise level."""
        return next(i for i, (floor, _) in enumerate(self.stages) if sigma > floor)

    def map(self, function: Callable[[Conditioning], Conditioning]) -> Course:
        """A course with a function applied to every stage."""
        return replace(self, stages=tuple((floor, function(cond)) for floor, cond in self.stages))


@dataclass(frozen=True, slots=True)
class Guide:
    """One picture's positive courses, joined by AND, and its negative one.

    `scale` is its guidance scale if that differs from the batch's.
    """

    cond: tuple[Course, ...]
    uncond: Course | None
    scale: float | None = None

    def map(self, function: Callable[[Conditioning], Conditioning]) -> Guide:
        """A guide with a function applied to every conditioning."""
        uncond = None if self.uncond is None else self.uncond.map(function)
        cond = tuple(course.map(function) for course in self.cond)
        return replace(self, cond=cond, uncond=uncond)


def constant_guides(cond: Conditioning, uncond: Conditioning | None) -> list[Guide]:
    """Guides of a batch with constant prompts: one for each row."""
    rows = range(len(cond.context))

    def row(batch: Conditioning, index: int) -> Course:
        return Course.constant(batch.map(lambda tensor: tensor[index : index + 1]))

    return [Guide((row(cond, i),), None if uncond is None else row(uncond, i)) for i in rows]


class Scales:
    """The guidance scales of a batch of B pictures: one for all, or one for each."""

    def __init__(self, own: Iterable[float | None]) -> None:
        """None stands for the batch's scale."""
        self._own = tuple(own)
        self._kept: dict[tuple[float, ...], Tensor] = {}

    def at(self, common: float, device: torch.device) -> float | Tensor:
        """A number if all are equal, else (B, 1, 1, 1), copied to the device once."""
        scales = tuple(common if scale is None else scale for scale in self._own)
        if len(set(scales)) == 1:
            return scales[0]
        if scales not in self._kept:
            self._kept[scales] = send(torch.tensor(scales), device).reshape(-1, 1, 1, 1)
        return self._kept[scales]


class Joined:
    """The guides of a batch of B pictures.

    The joined conditioning stays the same object as long as no prompt changes, since networks cache
    by identity.
    """

    def __init__(self, guides: Sequence[Guide]) -> None:
        """Raises UsageError for weights that cancel each other without a negative."""
        self._uncond = [guide.uncond for guide in guides if guide.uncond is not None]
        self._cond = [course for guide in guides for course in guide.cond]
        self._owners = [i for i, guide in enumerate(guides) for _ in guide.cond]
        self.composed = len(self._cond) > len(guides)
        self.guided = len(self._uncond) == len(guides)
        self._weights = [course.weight for course in self._cond]
        if self.composed and not self.guided:
            self._weights = _shares(self._weights, self._owners)
        self._tensors: tuple[Tensor, Tensor] | None = None
        self._kept: OrderedDict[tuple[int, ...], Conditioning] = OrderedDict()

    def rows(self, sigma: float, *, uncond: bool, perturbed: bool = False) -> Conditioning:
        """The batch's conditioning at a noise level.

        The negatives, one row each, if `uncond`; the prompts, one row each or, if composed, one for
        each part; and these again if `perturbed`.
        """
        stages = [course.stage(sigma) for course in (*self._uncond, *self._cond)]
        key = (uncond, perturbed, *stages)
        if key not in self._kept:
            self._kept[key] = self._joined(stages, uncond, perturbed)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def spread(self, x: Tensor) -> Tensor:
        """Repeat states (B, ...) for the rows of the prompts."""
        return x[self._on(x.device)[0]] if self.composed else x

    def compose(self, outputs: Tensor, uncond: Tensor | None) -> Tensor:
        """One output for each picture: u + sum of w_i (c_i - u) (arXiv:2206.01714, equation 11).

        outputs: one row for each prompt; uncond and result: (B, C, h, w). Without `uncond`, the
        weighted mean.
        """
        if not self.composed:
            return outputs
        owner, weights = self._on(outputs.device)
        if uncond is None:
            zero = outputs.new_zeros((self._owners[-1] + 1, *outputs.shape[1:]))
            return zero.index_add(0, owner, weights * outputs)
        return uncond.index_add(0, owner, weights * (outputs - uncond[owner]))

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Owners (N,) and weights (N, 1, 1, 1), copied to a device once."""
        if self._tensors is None:
            weights = torch.tensor(self._weights, device=device).reshape(-1, 1, 1, 1)
            self._tensors = torch.tensor(self._owners, device=device), weights
        return self._tensors

    def _joined(self, stages: Sequence[int], uncond: bool, perturbed: bool) -> Conditioning:
        courses = [*self._uncond, *self._cond]
        told = [course.stages[i][1] for course, i in zip(courses, stages, strict=True)]
        first = len(self._uncond)
        rows = (told if uncond else told[first:]) + (told[first:] if perturbed else [])
        batch = joined(rows)
        if not perturbed:
            return batch
        normal, again = len(rows) - len(self._cond), len(self._cond)
        marks = torch.tensor([False] * normal + [True] * again, device=batch.context.device)
        return replace(batch, perturbed=marks)


def _shares(weights: Sequence[float], owners: Sequence[int]) -> list[float]:
    totals: dict[int, float] = {}
    for weight, owner in zip(weights, owners, strict=True):
        totals[owner] = totals.get(owner, 0.0) + weight
    if any(abs(total) < 1e-6 for total in totals.values()):
        raise UsageError("the weights of AND come to 0; this model has no negative prompt to add")
    return [weight / totals[owner] for weight, owner in zip(weights, owners, strict=True)]
