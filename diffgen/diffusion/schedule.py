"""The noise schedule a model was trained with: timesteps t and noise levels sigma.

sigma = sqrt((1 - alpha_bar) / alpha_bar), with alpha_bar the cumulative product of 1 - beta (Ho et
al., arXiv:2006.11239); s / (1 - s) for flows, with s a share of noise (arXiv:2403.03206); or sigma
itself (EDM, arXiv:2206.00364). Tables are built in double precision from plain floats.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from diffgen.diffusion.prediction import Space, state_scale
from diffgen.types import NoiseConfig, Prediction

# Zero terminal SNR means sigma = infinity. The last alpha_bar is set to this value instead, so
# that sigma stays a number (4096) and x / sigma still has all its digits.
MIN_ALPHA_BAR = 2.0**-24
# A flow begins at pure noise, too: for the same reason its sigma ends at 4095.
MIN_SHARE = 2.0**-12
# Lowest and highest sigma and the deviation of the data, of Playground v2.5 and of CosXL.
EDM_RANGES: Mapping[Prediction, tuple[float, float, float]] = {
    "edm": (0.002, 80.0, 0.5),
    "edm_v": (0.002, 120.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """alpha_bar and sigma for t = 0 .. T-1, sigma ascending.

    `shift` is a flow's, None for others; `sigma_data` EDM's.
    """

    alphas_cumprod: tuple[float, ...]
    sigmas: tuple[float, ...]
    shift: float | None = None
    sigma_data: float | None = None

    @classmethod
    def from_config(cls, config: NoiseConfig) -> NoiseSchedule:
        """The tables of a checkpoint's schedule."""
        steps = config.num_train_timesteps
        if config.prediction == "flow":
            shares = [shifted((i + 1) / steps, config.shift) for i in range(steps)]
            return cls._of_sigmas([_share_to_sigma(s) for s in shares], shift=config.shift)
        if config.prediction in EDM_RANGES:
            low, high, data = edm_range(config)
            logs = linspace(math.log(low), math.log(high), steps)
            return cls._of_sigmas([math.exp(log) for log in logs], sigma_data=data)
        alphas_cumprod = list(accumulate((1.0 - beta for beta in _betas(config)), mul))
        if config.zero_snr:
            alphas_cumprod = _rescale_to_zero_snr(alphas_cumprod)
        return cls(
            tuple(alphas_cumprod),
            tuple(math.sqrt((1.0 - a) / a) for a in alphas_cumprod),
        )

    @classmethod
    def _of_sigmas(
        cls, sigmas: list[float], *, shift: float | None = None, sigma_data: float | None = None
    ) -> NoiseSchedule:
        return cls(tuple(1.0 / (1.0 + s * s) for s in sigmas), tuple(sigmas), shift, sigma_data)

    @property
    def num_train_timesteps(self) -> int:
        return len(self.sigmas)

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1]

    @property
    def on_betas(self) -> bool:
        """Whether this is DDPM's noise, which training and Align Your Steps require."""
        return self.shift is None and self.sigma_data is None

    @property
    def space(self) -> Space:
        """The mixture of picture and noise that the network's input is."""
        return "vp" if self.shift is None else "flow"

    def time(self, sigma: float) -> float:
        """The network's input for a noise level: t, 1000 s for flows, ln(sigma) / 4 for EDM."""
        if self.sigma_data is not None:
            return math.log(sigma) / 4.0
        if self.shift is None:
            return self.sigma_to_t(sigma)
        share = 1.0 if sigma >= self.sigma_max else sigma / (1.0 + sigma)
        return self.num_train_timesteps * share

    def state_scale(self, sigma: float) -> float:
        """x in sigma space is this times the network's input state."""
        return state_scale(sigma, self.space, self.sigma_data or 1.0)

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and highest noise level in the model's own unit: sigma, or a flow's s."""
        if self.shift is None:
            return self.sigma_min, self.sigma_max
        return self.sigma_min / (1.0 + self.sigma_min), 1.0

    def from_own(self, level: float) -> float:
        """sigma of a noise level in the model's own unit."""
        return level if self.shift is None else _share_to_sigma(level)

    def sigma_to_t(self, sigma: float) -> float:
        """Timestep of a noise level, log-linear between table entries, clamped to [0, T-1]."""
        if sigma <= self.sigma_min:
            return 0.0
        if sigma >= self.sigma_max:
            return float(len(self.sigmas) - 1)
        if self.shift is not None:
            share = shifted(sigma / (1.0 + sigma), 1.0 / self.shift)
            return share * self.num_train_timesteps - 1.0
        low = bisect_right(self.sigmas, sigma) - 1
        below, above = self.sigmas[low], self.sigmas[low + 1]
        return low + math.log(sigma / below) / math.log(above / below)

    def t_to_sigma(self, t: float) -> float:
        """Noise level of a timestep, log-linear between table entries, clamped to [0, T-1]."""
        t = min(max(t, 0.0), len(self.sigmas) - 1.0)
        low = min(int(t), len(self.sigmas) - 2)
        below, above = self.sigmas[low], self.sigmas[low + 1]
        # Table entries are exact; only fractions go through the logarithm.
        if t == low:
            return below
        if self.shift is not None:
            return _share_to_sigma(shifted((t + 1.0) / self.num_train_timesteps, self.shift))
        return above if t == low + 1 else below * (above / below) ** (t - low)


def shifted(share: float, shift: float) -> float:
    """A share of noise moved towards 1 by a shift above 1 (arXiv:2403.03206, eq. 23)."""
    return shift * share / (1.0 + (shift - 1.0) * share)


def _share_to_sigma(share: float) -> float:
    return share / max(1.0 - share, MIN_SHARE)


def edm_range(config: NoiseConfig) -> tuple[float, float, float]:
    """Lowest and highest sigma and the deviation of the data, of an EDM model."""
    own = (config.sigma_min, config.sigma_max, config.sigma_data)
    low, high, data = (
        default if value is None else value
        for value, default in zip(own, EDM_RANGES[config.prediction], strict=True)
    )
    return low, high, data


def _betas(config: NoiseConfig) -> list[float]:
    """Named beta schedules. Beware: CompVis calls `scaled_linear` "linear"."""
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
