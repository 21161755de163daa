"""Few-step samplers for models distilled to jump straight to x0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


def sample_lcm(
    denoise: Denoiser, x: Tensor, sigmas: Sequence[float], *, noise: NoiseSource
) -> Steps:
    """Multistep consistency sampling (arXiv:2303.01469, algorithm 1; LCM, arXiv:2310.04378).

    LCM's boundary scalings c_skip and c_out differ from 0 and 1 by less than 1e-5 at every
    timestep that models are distilled on (19 and above), so they are left out.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        x = denoised
        if sigma_next > 0.0:
            x = x + sigma_next * noise(sigma, sigma_next)
        yield sigma_next, x, denoised


def sample_tcd(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    landings: Sequence[float],
) -> Steps:
    """Trajectory consistency (Zheng et al., arXiv:2402.19159, algorithm 4).

    Each step follows the ODE to `landings[step]`, a noise level at or below sigma_next, and adds
    noise back up to sigma_next.
    """
    total = len(sigmas) - 1
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        landing = landings[step]
        x = denoised + (landing / sigma) * (x - denoised)
        if sigma_next > landing and step < total - 1:
            up = math.sqrt(sigma_next**2 - landing**2)
            x = x + up * noise(sigma, sigma_next)
        yield sigma_next, x, denoised
