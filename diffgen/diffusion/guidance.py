"""The registry of guidance: rules that combine outputs with and without the prompt.

c is the network's output with the prompt, u without it, s the scale; C and U the same as x0. Rows
are plain data, without torch, so that a wrong setting is refused before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from diffgen.diffusion.samplers.common import ancestral_split
from diffgen.errors import UsageError
from diffgen.types import GuidanceName, Stretch

EVERYWHERE = (0.0, math.inf)
CFG_PLUS_PLUS = 0.6  # the default; pictures are then close to those of CFG at 7.5 (section 4)
# Samplers whose step is x0 + r (x - x0), r = sigma_down / sigma, and their fixed eta, if any.
FIRST_ORDER: Mapping[str, float | None] = {"ddim": None, "euler": 0.0, "euler_a": None, "ddpm": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceRule:
    """A guidance rule; `evaluations` is the number of network evaluations per picture and step."""

    name: str
    equation: str
    paper: str
    evaluations: int
    options: Mapping[str, float] = field(default_factory=dict)


_ROWS = (
    GuidanceRule(name="cfg", equation="u + s (c - u)", paper="arXiv:2207.12598", evaluations=2),
    GuidanceRule(
        name="cfg++",
        equation="U + s (C - U), then the noise of u; s from 0 to 1",
        paper="arXiv:2406.08070",
        evaluations=2,
    ),
    GuidanceRule(
        name="apg",
        equation="C + (s - 1) (D across C + parallel D along C), D = min(1, norm / |D|) D,"
        " D = C - U + momentum D of the step before",
        paper="arXiv:2410.02416",
        evaluations=2,
        options={"apg_momentum": -0.5, "apg_norm": 15.0, "apg_parallel": 0.0},
    ),
    GuidanceRule(
        name="pag",
        equation="any of these + pag (c - c with identity for self-attention in the mid block)",
        paper="arXiv:2403.17377",
        evaluations=3,
        options={"pag": 0.0},
    ),
)
GUIDANCE: Mapping[str, GuidanceRule] = MappingProxyType({row.name: row for row in _ROWS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """The resolved guidance of a run.

    `scales` are (floor, scale): each applies to noise levels above its floor and up to the floor
    before; below the last floor the last applies. 1 is none. `rescale` pulls the standard deviation
    of the guided output back to that of c (arXiv:2305.08891, equation 15). Outside of `low < sigma
    <= high`, `interval`, there is no guidance (arXiv:2404.07724).
    """

    scales: tuple[tuple[float, float], ...]
    name: GuidanceName = "cfg"
    rescale: float = 0.0
    interval: tuple[float, float] = EVERYWHERE
    pag: float = 0.0
    apg_momentum: float = -0.5
    apg_norm: float = 15.0
    apg_parallel: float = 0.0

    @classmethod
    def constant(
        cls, scale: float, *, rescale: float = 0.0, interval: tuple[float, float] = EVERYWHERE
    ) -> Guidance:
        """Classifier-free guidance with one scale; 1 or less is none."""
        return cls(scales=((-1.0, max(scale, 1.0)),), rescale=rescale, interval=interval)

    @property
    def shared(self) -> Hashable:
        """A key, equal for guidances of pictures that may share a network call.

        Plain scales may differ if they need the same evaluations.
        """
        plain = self.name == "cfg" and len(self.scales) == 1
        return self.scales[0][1] != 1.0 if plain else self.scales

    def applies(self, sigma: float) -> bool:
        """Whether a noise level lies in the interval."""
        low, high = self.interval
        return low < sigma <= high

    def scale(self, sigma: float) -> float:
        """The scale at a noise level; 1 for no guidance."""
        if not self.applies(sigma):
            return 1.0
        return next((s for floor, s in self.scales if sigma > floor), self.scales[-1][1])


def scales_of_steps(
    name: GuidanceName,
    stretches: Sequence[Stretch],
    sigmas: Sequence[float],
    *,
    sampler: str,
    options: Mapping[str, float],
) -> tuple[tuple[float, float], ...]:
    """The scales of a run by noise level; `options` are the sampler's.

    Raises UsageError for CFG++ with an unsupported sampler, or with a scale above 1.
    """
    if name == "cfg++" and not all(0.0 <= each.scale <= 1.0 for each in stretches):
        raise UsageError("cfg++ takes guidance scales from 0 to 1")
    steps = max(len(sigmas) - 1, 1)
    scales = [_at(stretches, step / steps, name) for step in range(steps)]
    if name == "cfg++":
        ratios = _noise_kept(sigmas, sampler, options)
        scales = [scale / (1.0 - ratio) for scale, ratio in zip(scales, ratios, strict=True)]
    floors = [*sigmas[1:-1], -1.0]
    found: list[tuple[float, float]] = []
    for floor, scale in zip(floors, scales, strict=True):
        if found and found[-1][1] == scale:
            found.pop()
        found.append((floor, scale))
    return tuple(found)


def _at(stretches: Sequence[Stretch], share: float, name: GuidanceName) -> float:
    # A tolerance, as 0.6 of 10 steps is not exactly 6.
    inside = (each.scale for each in stretches if each.start - 1e-9 <= share < each.end - 1e-9)
    scale = next(inside, 1.0)
    return scale if name == "cfg++" else max(scale, 1.0)


def _noise_kept(sigmas: Sequence[float], sampler: str, options: Mapping[str, float]) -> list[float]:
    """sigma_down / sigma of each step.

    CFG++ steps to X + sigma_down (x - U) / sigma with X = U + s (C - U) (algorithm 2). An Euler
    step from another x0, Y, goes to Y + sigma_down (x - Y) / sigma. Both are the same for
    Y = U + s / (1 - sigma_down / sigma) (C - U): CFG with a scale that changes from step to step.
    """
    if sampler not in FIRST_ORDER or options.get("s_churn"):
        known = ", ".join(FIRST_ORDER)
        raise UsageError(f"cfg++ is defined for {known} without churn, not {sampler}")
    fixed = FIRST_ORDER[sampler]
    eta = options.get("eta", 0.0) if fixed is None else fixed
    return [ancestral_split(sigma, after, eta)[0] / sigma for sigma, after in pairwise(sigmas)]
