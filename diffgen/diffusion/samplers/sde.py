"""Solvers of the reverse SDE beyond the DPM-Solver++ family: ER-SDE and SA-Solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffgen.diffusion.samplers.common import log_step
from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


def sample_er_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, order: int = 3
) -> Steps:
    """Extended reverse-time SDE (Cui et al., arXiv:2309.06169, algorithm 1).

    `order` is the authors' number of Taylor terms; derivatives are backward differences, so the
    measured order of convergence is 2.
    """
    before: Tensor | None = None
    slope_before: Tensor | None = None
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if sigma_next == 0.0:
            x = denoised
        else:
            kept = _er_scale(sigma_next) / _er_scale(sigma)
            x = kept * x + (1.0 - kept) * denoised
            if before is not None and order > 1:
                slope = (denoised - before) / (sigma - sigmas[step - 1])
                x = x + _er_moment(sigma, sigma_next, 1) * slope
                if slope_before is not None and order > 2:
                    curvature = (slope - slope_before) / ((sigma - sigmas[step - 2]) / 2)
                    x = x + _er_moment(sigma, sigma_next, 2) * curvature
                slope_before = slope
            up = math.sqrt(max(sigma_next**2 - (sigma * kept) ** 2, 0.0))
            x = x + up * noise(sigma, sigma_next)
        before = denoised
        yield sigma_next, x, denoised


def _er_scale(sigma: float) -> float:
    """The noise scale function the paper found best ("ER-SDE 5", table 1)."""
    return sigma * (math.exp(sigma**0.3) + 10.0)


def _er_moment(sigma: float, sigma_next: float, power: int, cells: int = 200) -> float:
    """Weight of the derivative of that order: equation 18, its integral by the midpoint rule."""
    width = (sigma - sigma_next) / cells
    points = [sigma_next + (i + 0.5) * width for i in range(cells)]
    integral = sum((p - sigma) ** (power - 1) / _er_scale(p) for p in points) * width
    return (sigma_next - sigma) ** power / power + integral * _er_scale(sigma_next)


def sample_sa_solver(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    stochastic_between: tuple[float, float] = (0.0, math.inf),
) -> Steps:
    """SA-Solver: stochastic Adams predictor and corrector of order 2 (arXiv:2309.05019).

    tau is 1 for noise levels in `stochastic_between` and 0 elsewhere. The second-order weights
    are the authors' simplified ones (their code, section on data prediction), which agree with
    the exact integrals to leading order: a h^2 / 2 and a h / 2 with a = 1 + tau^2.
    """
    low, high = stochastic_between
    history: list[Tensor] = []
    x_before, draw = x, x
    total = len(sigmas) - 1
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        if step > 0:
            tau = 1.0 if low <= sigmas[step - 1] <= high else 0.0
            base, a, h = _adams_base(x_before, history[0], draw, sigmas[step - 1], sigma, tau)
            x = base + (0.5 * a * h) * (denoised - history[0])
        history = [denoised, *history[:1]]
        if sigma_next == 0.0:
            x = denoised
        else:
            tau = 1.0 if low <= sigma <= high else 0.0
            x_before, draw = x, noise(sigma, sigma_next)
            x, a, h = _adams_base(x, denoised, draw, sigma, sigma_next, tau)
            if len(history) == 2 and step < total - 1:
                slope = (denoised - history[1]) / log_step(sigmas[step - 1], sigma)
                x = x + (0.5 * a * h * h) * slope
        yield sigma_next, x, denoised


def _adams_base(
    x: Tensor, denoised: Tensor, draw: Tensor, sigma: float, sigma_next: float, tau: float
) -> tuple[Tensor, float, float]:
    """The first-order step of the SDE with noise strength tau; also a = 1 + tau^2 and h."""
    h = log_step(sigma, sigma_next)
    a = 1.0 + tau * tau
    decay = math.exp(-a * h)
    x = decay * x + (1.0 - decay) * denoised
    if tau > 0.0:
        x = x + sigma_next * math.sqrt(-math.expm1(-2.0 * tau * tau * h)) * draw
    return x, a, h
