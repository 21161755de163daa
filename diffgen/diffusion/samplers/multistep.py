"""Linear multistep samplers on eps = (x - denoised) / sigma, the slope of the ODE in sigma."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffgen.diffusion.prediction import eps_from_v, v_from_eps
from diffgen.diffusion.samplers.common import solve_vandermonde
from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor

# Adams-Bashforth weights for equal steps, newest first, by number of slopes known.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def sample_plms(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    combine_v: bool = False,
) -> Steps:
    """PNDM without its Runge-Kutta warm-up (Liu et al., arXiv:2202.09778, equations 9 and 12).

    The first step is a trapezoidal one, so a run of n steps costs n + 1 evaluations. The weights
    suppose timesteps at equal distances. What they combine is the network's own output: eps, the
    slope in sigma, or for v-prediction models v, the slope of the variance-preserving state in
    the angle atan(sigma).
    """
    read, apply = (v_from_eps, eps_from_v) if combine_v else (_same, _same)
    outputs: deque[Tensor] = deque(maxlen=4)
    total = len(sigmas) - 1
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        outputs.appendleft(read((x - denoised) / sigma, x, sigma))
        output = _combine(ADAMS_BASHFORTH[len(outputs) - 1], outputs)
        if step == 0 and total > 1:
            ahead = x + (sigma_next - sigma) * apply(output, x, sigma)
            eps_ahead = (ahead - denoise(ahead, sigma_next)) / sigma_next
            output = 0.5 * (output + read(eps_ahead, ahead, sigma_next))
        x = x + (sigma_next - sigma) * apply(output, x, sigma)
        yield sigma_next, x, denoised


def _same(eps: Tensor, x: Tensor, sigma: float) -> Tensor:
    return eps


def sample_ipndm(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource
) -> Steps:
    """PNDM that warms up with lower orders and no extra evaluation (arXiv:2204.13902, app. C)."""
    slopes: deque[Tensor] = deque(maxlen=4)
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        slopes.appendleft((x - denoised) / sigma)
        x = x + (sigma_next - sigma) * _combine(ADAMS_BASHFORTH[len(slopes) - 1], slopes)
        yield sigma_next, x, denoised


def sample_lms(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, order: int = 4
) -> Steps:
    """Adams-Bashforth for unequal steps: the slope as a polynomial in sigma, integrated exactly."""
    slopes: deque[Tensor] = deque(maxlen=order)
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes.appendleft((x - denoised) / sigma)
        nodes = [sigmas[step - k] - sigma for k in range(len(slopes))]
        width = sigma_next - sigma
        moments = [width ** (j + 1) / (j + 1) for j in range(len(nodes))]
        x = x + _combine(solve_vandermonde(nodes, moments), slopes)
        yield sigma_next, x, denoised


def sample_deis(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, order: int = 2
) -> Steps:
    """DEIS in log rho: eps as a polynomial in log sigma (arXiv:2204.13902, section 3.3).

    The last step is of first order where the run ends at 0 or is short, as there the polynomial
    would be followed too far.
    """
    slopes: deque[Tensor] = deque(maxlen=order)
    total = len(sigmas) - 1
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        slopes.appendleft((x - denoised) / sigma)
        usable = len(slopes) if total >= 15 else min(len(slopes), total - step)
        if sigma_next == 0.0:
            usable = 1
        nodes = [math.log(sigmas[step - k] / sigma) for k in range(usable)]
        weights = solve_vandermonde(nodes, _exponential_moments(sigma, sigma_next, usable))
        x = x + _combine(weights, slopes)
        yield sigma_next, x, denoised


def _exponential_moments(sigma: float, sigma_next: float, count: int) -> list[float]:
    """Integrals of u^j over sigma, u = log(sigma' / sigma), from sigma to sigma_next."""
    moments = [sigma_next - sigma]
    for j in range(1, count):
        u = math.log(sigma_next / sigma)
        moments.append(sigma_next * u**j - j * moments[-1])
    return moments


def _combine(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], list(slopes)[1 : len(weights)], strict=True):
        total = total + weight * slope
    return total
