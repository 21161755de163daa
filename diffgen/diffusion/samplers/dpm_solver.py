"""The singlestep DPM-Solver (Lu et al., arXiv:2206.00927): its fast and adaptive samplers.

`t = -log(sigma)` as in the paper; all updates are exponential integrators for eps. Both samplers
run to the lowest positive noise level of the run and spend one last evaluation to reach 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


class _Solver:
    """DPM-Solver-1, -2 and -3 for one step, sharing evaluations (appendix B)."""

    def __init__(self, denoise: Denoiser) -> None:
        self._denoise = denoise

    def eps(self, x: Tensor, t: float) -> Tensor:
        sigma = math.exp(-t)
        return (x - self._denoise(x, sigma)) / sigma

    def first(self, x: Tensor, eps: Tensor, t: float, h: float) -> Tensor:
        """DPM-Solver-1, equation 3.7."""
        return x - math.exp(-t - h) * math.expm1(h) * eps

    def at(self, x: Tensor, eps: Tensor, t: float, h: float, r: float) -> Tensor:
        """eps at the inner point t + r h."""
        return self.eps(self.first(x, eps, t, r * h), t + r * h)

    def second(self, x: Tensor, eps: Tensor, eps_r: Tensor, t: float, h: float, r: float) -> Tensor:
        """DPM-Solver-2, algorithm 4, given eps at t + r h."""
        sigma = math.exp(-t - h)
        return self.first(x, eps, t, h) - sigma / (2 * r) * math.expm1(h) * (eps_r - eps)

    def third(self, x: Tensor, eps: Tensor, eps_r: Tensor, t: float, h: float) -> Tensor:
        """DPM-Solver-3, algorithm 5, with r1 = 1/3, r2 = 2/3, given eps at t + h / 3."""
        z = 2 / 3 * h
        x_2 = self.first(x, eps, t, z)
        x_2 = x_2 - math.exp(-t - z) * 2 * (math.expm1(z) / z - 1) * (eps_r - eps)
        eps_2 = self.eps(x_2, t + z)
        return self.first(x, eps, t, h) - math.exp(-t - h) * 1.5 * (math.expm1(h) / h - 1) * (
            eps_2 - eps
        )

    def step(self, x: Tensor, eps: Tensor, t: float, h: float, order: int) -> Tensor:
        if order == 1:
            return self.first(x, eps, t, h)
        if order == 2:
            return self.second(x, eps, self.at(x, eps, t, h, 0.5), t, h, 0.5)
        return self.third(x, eps, self.at(x, eps, t, h, 1 / 3), t, h)


def fast_orders(evaluations: int) -> list[int]:
    """Orders of DPM-Solver-fast for a budget of evaluations (section 3.4)."""
    if evaluations % 3 == 0:
        return [3] * (evaluations // 3 - 1) + [2, 1] if evaluations else []
    return [3] * (evaluations // 3) + [evaluations % 3]


def fast_steps(sigmas: Sequence[float]) -> list[int]:
    """Orders of the steps to the lowest positive noise level; the last step needs one more."""
    return fast_orders(len(sigmas) - 2) if sigmas[-2] < sigmas[0] else []


def sample_dpm_fast(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource
) -> Steps:
    """DPM-Solver-fast: as many evaluations as steps asked for, uniform in log sigma.

    Only the ends of the run's noise levels are used.
    """
    solver, orders = _Solver(denoise), fast_steps(sigmas)
    start, end = -math.log(sigmas[0]), -math.log(sigmas[-2])
    for index, order in enumerate(orders):
        t = start + (end - start) * index / len(orders)
        h = (end - start) / len(orders)
        eps = solver.eps(x, t)
        denoised = x - math.exp(-t) * eps
        x = solver.step(x, eps, t, h, order)
        yield math.exp(-t - h), x, denoised
    yield _last_step(denoise, x, sigmas)


def sample_dpm_adaptive(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    rtol: float = 0.05,
    atol: float = 0.0078,
) -> Steps:
    """DPM-Solver-23 with adaptive steps (appendix C): the tolerance decides, not `--steps`.

    The error is a norm over all of x, so x must hold a single image: otherwise pictures would
    depend on their batch.
    """
    solver = _Solver(denoise)
    t, end = -math.log(sigmas[0]), -math.log(sigmas[-2])
    h, before = 0.05, x
    while end - t > 1e-5:
        h = min(h, end - t)
        eps = solver.eps(x, t)
        eps_r = solver.at(x, eps, t, h, 1 / 3)
        low = solver.second(x, eps, eps_r, t, h, 1 / 3)
        high = solver.third(x, eps, eps_r, t, h)
        tolerance = (rtol * low.abs().maximum(before.abs())).clamp(min=atol)
        error = float(((low - high) / tolerance).square().mean().sqrt())
        # A NaN is accepted: smaller steps cannot cure it, and the engine reports it.
        if not 1.0 < error < math.inf:
            denoised = x - math.exp(-t) * eps
            x, before, t = high, low, t + h
            yield math.exp(-t), x, denoised
        if math.isfinite(error):
            h *= 0.9 * max(error, 1e-6) ** (-1 / 3)
    yield _last_step(denoise, x, sigmas)


def _last_step(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float]
) -> tuple[float, Tensor, Tensor]:
    """From the lowest positive noise level to 0 in one evaluation."""
    denoised = denoise(x, sigmas[-2])
    return 0.0, denoised, denoised
