"""The noise schedule a model was trained with: timesteps t on one side, sigma on the other.

sigma = sqrt((1 - alpha_bar) / alpha_bar), with alpha_bar the cumulative product of 1 - beta
(Ho et al., arXiv:2006.11239). Tables are built in double precision from plain floats.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from diffgen.types import ScheduleConfig

# Zero terminal SNR means sigma = infinity. The last alpha_bar is kept at this value instead, so
# that sigma stays a number (4096) and x / sigma still has all its digits.
MIN_ALPHA_BAR = 2.0**-24


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """alpha_bar and sigma for t = 0 .. T-1, sigma ascending."""

    alphas_cumprod: tuple[float, ...]
    sigmas: tuple[float, ...]

    @classmethod
    def from_config(cls, config: ScheduleConfig) -> NoiseSchedule:
        """The tables of a checkpoint's schedule."""
        alphas_cumprod = list(accumulate((1.0 - beta for beta in _betas(config)), mul))
        if config.zero_snr:
            alphas_cumprod = _rescale_to_zero_snr(alphas_cumprod)
        return cls(
            tuple(alphas_cumprod),
            tuple(math.sqrt((1.0 - a) / a) for a in alphas_cumprod),
        )

    @property
    def num_train_timesteps(self) -> int:
        return len(self.sigmas)

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1]

    def sigma_to_t(self, sigma: float) -> float:
        """Timestep of a noise level, log-linear between table entries, clamped to [0, T-1]."""
        if sigma <= self.sigma_min:
            return 0.0
        if sigma >= self.sigma_max:
            return float(len(self.sigmas) - 1)
        low = bisect_right(self.sigmas, sigma) - 1
        below, above = self.sigmas[low], self.sigmas[low + 1]
        return low + math.log(sigma / below) / math.log(above / below)

    def t_to_sigma(self, t: float) -> float:
        """Noise level of a timestep, log-linear between table entries, clamped to [0, T-1]."""
        t = min(max(t, 0.0), len(self.sigmas) - 1.0)
        low = min(int(t), len(self.sigmas) - 2)
        below, above = self.sigmas[low], self.sigmas[low + 1]
        # Table entries come back to the bit; only fractions pass through the logarithm.
        if t == low:
            return below
        return above if t == low + 1 else below * (above / below) ** (t - low)


def _betas(config: ScheduleConfig) -> list[float]:
    """Named beta schedules. Mind the names: CompVis calls `scaled_linear` "linear"."""
    if config.betas is not None:
        return [float(beta) for beta in config.betas]
    steps = config.num_train_timesteps
    if config.beta_schedule == "linear":
        return linspace(config.beta_start, config.beta_end, steps)
    if config.beta_schedule == "scaled_linear":
        roots = linspace(math.sqrt(config.beta_start), math.sqrt(config.beta_end), steps)
        return [root * root for root in roots]

    def alpha_bar(t: float) -> float:  # the cosine schedule, arXiv:2102.09672, equation 17
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return [
        min(1.0 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), 0.999) for i in range(steps)
    ]


def _rescale_to_zero_snr(alphas_cumprod: list[float]) -> list[float]:
    """Shift and scale sqrt(alpha_bar) so that the last is 0 (arXiv:2305.08891, algorithm 1)."""
    roots = [math.sqrt(a) for a in alphas_cumprod]
    first, last = roots[0], roots[-1]
    scaled = [((root - last) * first / (first - last)) ** 2 for root in roots]
    return [max(a, MIN_ALPHA_BAR) for a in scaled]


def linspace(start: float, end: float, count: int) -> list[float]:
    """`count` evenly spaced numbers, both ends included; `[start]` for a count of 1."""
    if count == 1:
        return [start]
    step = (end - start) / (count - 1)
    return [*(start + i * step for i in range(count - 1)), end]
