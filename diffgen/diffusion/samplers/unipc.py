"""UniPC (Zhao et al., arXiv:2302.04867): a predictor and a corrector from the same evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from diffgen.diffusion.samplers.common import log_step, solve_vandermonde
from diffgen.types import Denoiser, NoiseSource, Steps

if TYPE_CHECKING:
    from torch import Tensor


def sample_unipc(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: NoiseSource,
    variant: Literal["bh1", "bh2"] = "bh2",
    order: int = 2,
) -> Steps:
    """UniPC of the given order for x0 prediction (algorithms 5 to 8), B(h) by `variant`.

    Each evaluation is used twice: it corrects the step before, then predicts the next, so a step
    costs one evaluation.
    """
    history: list[Tensor] = []  # x0 estimates, newest first
    x_before, used = x, 0
    total = len(sigmas) - 1
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        update = partial(_update, sigmas=sigmas, variant=variant)
        if step > 0:
            x = update(x_before, history, step - 1, used, corrected=denoised)
        history = [denoised, *history[: order - 1]]
        used = min(order, len(history), total - step)
        x_before = x
        x = update(x, history, step, used) if sigma_next > 0.0 else denoised
        yield sigma_next, x, denoised


def _update(
    x: Tensor,
    history: Sequence[Tensor],
    step: int,
    order: int,
    *,
    sigmas: Sequence[float],
    variant: str,
    corrected: Tensor | None = None,
) -> Tensor:
    """Equation 3 (predictor), or equation 6 (corrector) when x0 at the end point is known."""
    sigma, sigma_next = sigmas[step], sigmas[step + 1]
    h = log_step(sigma, sigma_next)
    # Distances of the points used to the start of the step, in units of h; the end point is 1.
    ratios = [-log_step(sigmas[step - k], sigma) / h for k in range(1, order)]
    slopes = [(past - history[0]) / r for past, r in zip(history[1:order], ratios, strict=True)]
    if corrected is not None:
        ratios.append(1.0)
        slopes.append(corrected - history[0])
    x = (sigma_next / sigma) * x - math.expm1(-h) * history[0]
    scale = -h if variant == "bh1" else math.expm1(-h)
    for weight, slope in zip(_weights(ratios, -h, scale), slopes, strict=True):
        x = x - (scale * weight) * slope
    return x


def _weights(ratios: Sequence[float], hh: float, scale: float) -> list[float]:
    """Solve R(h) a = b(h), equation 5 with phi functions of hh = -h (equation 11)."""
    # One weight alone satisfies the order condition for any B(h) at 1/2 (appendix F.2).
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    phi, factorial, moments = math.expm1(hh) / hh - 1.0, 1.0, []
    for k in range(1, len(ratios) + 1):
        moments.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / hh - 1.0 / factorial
    return solve_vandermonde(ratios, moments)
