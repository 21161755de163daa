"""First-order samplers: Euler and ancestral Euler, of which DDIM and DDPM are settings.

In sigma space the probability-flow ODE is dx/dsigma = (x - denoised) / sigma (Karras et al.,
arXiv:2206.00364, equation 1 with s = 1), so an Euler step keeps the direction from `denoised` to
x and shortens it by sigma_next / sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffgen.diffusion.samplers.common import ancestral_split, churn
from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


def sample_euler(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    s_churn: float = 0.0,
) -> Steps:
    """Euler, with the optional churn of arXiv:2206.00364, algorithm 2."""
    total = len(sigmas) - 1
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = churn(x, sigma, s_churn / total, noise)
        denoised = denoise(x, sigma_hat)
        x = denoised + (sigma_next / sigma_hat) * (x - denoised)
        yield sigma_next, x, denoised


def sample_euler_ancestral(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource, eta: float = 1.0
) -> Steps:
    """Euler to below sigma_next, then noise back up to it.

    eta = 0 is DDIM, other eta its stochastic form (arXiv:2010.02502, equation 16); eta = 1 is
    DDPM's posterior with the smaller variance (arXiv:2006.11239, equations 6 and 7).
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = denoised + (sigma_down / sigma) * (x - denoised)
        if sigma_up > 0.0:
            x = x + sigma_up * noise(sigma, sigma_next)
        yield sigma_next, x, denoised
