"""The DPM-Solver++ family (Lu et al., arXiv:2211.01095): exponential integrators for x0.

With lambda = -log(sigma) and h its step, the exact solution in sigma space is
x_next = exp(-h) x + integral of exp(lambda - lambda_next) x0(lambda) over the step; the methods
differ in how they extrapolate x0. The stochastic ones solve the reverse SDE, where every h in the
exponentials becomes (1 + eta) h and fresh noise makes up the variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffgen.diffusion.samplers.common import ancestral_split, log_step
from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


def sample_dpmpp_2m(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource
) -> Steps:
    """DPM-Solver++(2M): x0 extrapolated linearly from the step before (algorithm 2)."""
    previous, h_previous = None, 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        h = log_step(sigma, sigma_next)
        estimate = denoised
        if previous is not None and sigma_next > 0.0:
            estimate = denoised + (0.5 * h / h_previous) * (denoised - previous)
        x = (sigma_next / sigma) * x - math.expm1(-h) * estimate
        previous, h_previous = denoised, h
        yield sigma_next, x, denoised


def sample_dpmpp_2m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, eta: float = 1.0
) -> Steps:
    """SDE-DPM-Solver++(2M), midpoint form (section 5)."""
    previous, h_previous = None, 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        h = log_step(sigma, sigma_next)
        estimate = denoised
        if previous is not None and sigma_next > 0.0:
            estimate = denoised + (0.5 * h / h_previous) * (denoised - previous)
        x = _sde_step(x, estimate, sigma, sigma_next, eta, noise)
        previous, h_previous = denoised, h
        yield sigma_next, x, denoised


def sample_dpmpp_3m_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, eta: float = 1.0
) -> Steps:
    """SDE-DPM-Solver++(3M): x0 as a quadratic in lambda through three steps (appendix B).

    The weights are the authors'; they give the curvature half its Taylor weight, so the measured
    order is 2, with a smaller error than 2M's.
    """
    history: list[Tensor] = []
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        history = [denoised, *history[:2]]
        x_next = _sde_step(x, denoised, sigma, sigma_next, eta, noise)
        if sigma_next > 0.0 and len(history) > 1:
            x_next = x_next + _taylor_terms(history, sigmas[max(step - 2, 0) : step + 2], eta)
        x = x_next
        yield sigma_next, x, denoised


def _sde_step(
    x: Tensor, denoised: Tensor, sigma: float, sigma_next: float, eta: float, noise: NoiseSource
) -> Tensor:
    """The first-order step of the reverse SDE with x0 constant over it."""
    h = log_step(sigma, sigma_next)
    if sigma_next == 0.0:
        return denoised
    decay = math.exp(-(1.0 + eta) * h)
    x = decay * x + (1.0 - decay) * denoised
    if eta > 0.0:
        x = x + sigma_next * math.sqrt(-math.expm1(-2.0 * eta * h)) * noise(sigma, sigma_next)
    return x


def _taylor_terms(history: Sequence[Tensor], sigmas: Sequence[float], eta: float) -> Tensor:
    """First and second derivative terms of x0; `sigmas` ends in (..., sigma, sigma_next)."""
    h = log_step(sigmas[-2], sigmas[-1])
    r0 = log_step(sigmas[-3], sigmas[-2]) / h
    slope = (history[0] - history[1]) / r0
    z = (1.0 + eta) * h
    phi_2 = math.expm1(-z) / z + 1.0
    if len(history) == 2:
        return phi_2 * slope
    r1 = log_step(sigmas[-4], sigmas[-3]) / h
    slope_before = (history[1] - history[2]) / r1
    curvature = (slope - slope_before) / (r0 + r1)
    phi_3 = phi_2 / z - 0.5
    return phi_2 * (slope + r0 * curvature) - phi_3 * curvature


def sample_dpmpp_2s_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, eta: float = 1.0
) -> Steps:
    """DPM-Solver++(2S) with ancestral noise: x0 taken at the middle of the step (algorithm 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        estimate = denoised
        if sigma_down > 0.0:
            middle = math.sqrt(sigma * sigma_down)
            x_middle = denoised + (middle / sigma) * (x - denoised)
            estimate = denoise(x_middle, middle)
        x = estimate + (sigma_down / sigma) * (x - estimate)
        if sigma_up > 0.0:
            x = x + sigma_up * noise(sigma, sigma_next)
        yield sigma_next, x, denoised


def sample_dpmpp_sde(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, eta: float = 1.0
) -> Steps:
    """A single-step second-order solver of the reverse SDE: noise at the middle and at the end."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if sigma_next > 0.0:
            middle = math.sqrt(sigma * sigma_next)
            x_middle = _ancestral_step(x, denoised, sigma, middle, eta, noise)
            x = _ancestral_step(x, denoise(x_middle, middle), sigma, sigma_next, eta, noise)
        else:
            x = denoised
        yield sigma_next, x, denoised


def _ancestral_step(
    x: Tensor, denoised: Tensor, sigma: float, sigma_next: float, eta: float, noise: NoiseSource
) -> Tensor:
    sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
    x = denoised + (sigma_down / sigma) * (x - denoised)
    return x + sigma_up * noise(sigma, sigma_next) if sigma_up > 0.0 else x
