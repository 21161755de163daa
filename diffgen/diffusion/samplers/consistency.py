"""Few-step samplers for models distilled to jump straight to x0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffgen.diffusion.samplers.common import ignore, steps
from diffgen.types import Denoiser, NoiseSource, StepCallback, StepInfo

if TYPE_CHECKING:
    from torch import Tensor


def sample_lcm(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    on_step: StepCallback = ignore,
) -> Tensor:
    """Multistep consistency sampling (arXiv:2303.01469, algorithm 1; LCM, arXiv:2310.04378).

    LCM's boundary scalings c_skip and c_out differ from 0 and 1 by less than 1e-5 at every
    timestep that models are distilled on (19 and above), so they are left out.
    """
    for step, total, sigma, sigma_next in steps(sigmas):
        denoised = denoise(x, sigma)
        x = denoised
        if sigma_next > 0.0:
            x = x + sigma_next * noise(sigma, sigma_next)
        on_step(StepInfo(step, total, sigma_next, x, denoised))
    return x


def sample_tcd(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    landings: Sequence[float],
    on_step: StepCallback = ignore,
) -> Tensor:
    """Trajectory consistency (Zheng et al., arXiv:2402.19159, algorithm 4).

    Each step follows the ODE to `landings[step]`, a noise level at or below sigma_next, and adds
    noise back up to sigma_next.
    """
    for step, total, sigma, sigma_next in steps(sigmas):
        denoised = denoise(x, sigma)
        landing = landings[step]
        x = denoised + (landing / sigma) * (x - denoised)
        if sigma_next > landing and step < total - 1:
            up = math.sqrt(sigma_next**2 - landing**2)
            x = x + up * noise(sigma, sigma_next)
        on_step(StepInfo(step, total, sigma_next, x, denoised))
    return x
