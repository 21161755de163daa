"""Second-order one-step samplers in sigma: Heun, the DPM-Solver-2 midpoint rule, and Restart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffgen.diffusion.samplers.common import ancestral_split, churn
from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


def heun_step(
    denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float
) -> tuple[Tensor, Tensor]:
    """One trapezoidal step, or an Euler step when it ends at 0; returns (x, denoised)."""
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    if sigma_next == 0.0:
        return denoised, denoised
    predicted = denoised + sigma_next * slope
    slope_next = (predicted - denoise(predicted, sigma_next)) / sigma_next
    return x + (sigma_next - sigma) * 0.5 * (slope + slope_next), denoised


def midpoint_step(
    denoise: Denoiser, x: Tensor, sigma: float, sigma_next: float
) -> tuple[Tensor, Tensor]:
    """One midpoint step, the middle taken in log sigma (arXiv:2206.00927, DPM-Solver-2)."""
    denoised = denoise(x, sigma)
    if sigma_next == 0.0:
        return denoised, denoised
    middle = math.sqrt(sigma * sigma_next)
    x_middle = denoised + (middle / sigma) * (x - denoised)
    slope = (x_middle - denoise(x_middle, middle)) / middle
    return x + (sigma_next - sigma) * slope, denoised


def sample_heun(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    s_churn: float = 0.0,
) -> Steps:
    """Karras et al., arXiv:2206.00364, algorithms 1 and 2 (with churn)."""
    total = len(sigmas) - 1
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = churn(x, sigma, s_churn / total, noise)
        x, denoised = heun_step(denoise, x, sigma_hat, sigma_next)
        yield sigma_next, x, denoised


def sample_dpm2(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, eta: float = 0.0
) -> Steps:
    """DPM2; with eta > 0 its ancestral form, which steps below sigma_next and adds noise."""
    for sigma, sigma_next in pairwise(sigmas):
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x, denoised = midpoint_step(denoise, x, sigma, sigma_down)
        if sigma_up > 0.0:
            x = x + sigma_up * noise(sigma, sigma_next)
        yield sigma_next, x, denoised


def restart_segment(sigmas: Sequence[float]) -> tuple[int, list[float], int] | None:
    """(step after which to restart, noise levels of a restart, repetitions), or None.

    The paper's interval for text-to-image models is [0.1, 2]. A run without a noise level between
    0.1 and 1, or of fewer than four steps, has no room for a restart.
    """
    total = len(sigmas) - 1
    inside = [i for i, sigma in enumerate(sigmas) if i > 0 and 0.1 <= sigma < 1.0]
    if not inside or total < 4:
        return None
    bottom, top = sigmas[inside[-1]], min(2.0, sigmas[0])
    count = max(2, total // 4)
    # Karras spacing between the two ends, arXiv:2206.00364, equation 5.
    roots = [
        top ** (1 / 7) + i / count * (bottom ** (1 / 7) - top ** (1 / 7)) for i in range(count)
    ]
    return inside[-1] - 1, [*(root**7 for root in roots), bottom], 1 if total < 36 else 2


def sample_restart(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource
) -> Steps:
    """Heun with restarts: add noise and solve the last stretch again (arXiv:2306.14878).

    The added noise contracts the solver's accumulated error.
    """
    segment = restart_segment(sigmas)
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, denoised = heun_step(denoise, x, sigma, sigma_next)
        if segment and step == segment[0]:
            _, levels, times = segment
            for _ in range(times):
                top = levels[0]
                x = x + math.sqrt(top**2 - sigma_next**2) * noise(sigma_next, top)
                for high, low in pairwise(levels):
                    x, denoised = heun_step(denoise, x, high, low)
        yield sigma_next, x, denoised
