"""What a network predicts, and x0 from it: the arithmetic of all predictions, in both spaces.

A network reads the variance-preserving state x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps (Ho
et al., arXiv:2006.11239, eq. 4), which training makes from pictures; samplers keep x = x0 + sigma eps,
the same divided by sqrt(alpha_bar) = 1 / sqrt(1 + sigma^2). With v = sqrt(alpha_bar) eps - sqrt(1 -
alpha_bar) x0 (Salimans and Ho, arXiv:2202.00512, appendix D).

"flow" reads x_t = (1 - s) x0 + s eps with s = sigma / (1 + sigma) and predicts eps - x0 (Liu et al.,
arXiv:2209.03003; arXiv:2403.03206, eq. 13). "edm" reads x / sqrt(sigma_data^2 + sigma^2) and predicts
the F of Karras et al. (arXiv:2206.00364, table 1), "edm_v" its negative, which is v where sigma_data
is 1. Tensors are float32: x0, x, noise and output (B, C, h, w), alpha_bar (B,).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from diffgen.types import Prediction

if TYPE_CHECKING:
    from torch import Tensor


Space: TypeAlias = Literal["vp", "flow"]


def state_scale(sigma: float, space: Space = "vp", data: float = 1.0) -> float:
    """x in sigma space is this times the network's input state.

    sqrt(data^2 + sigma^2), or 1 + sigma for a flow, which interpolates picture and noise.
    """
    return 1.0 + sigma if space == "flow" else math.hypot(data, sigma)


def x0_weights(prediction: Prediction, sigma: float, data: float = 1.0) -> tuple[float, float]:
    """(keep, gain) with x0 = keep x + gain output, x in sigma space."""
    if prediction == "eps":
        return 1.0, -sigma
    if prediction == "sample":
        return 0.0, 1.0
    if prediction == "flow":
        share = 1.0 / state_scale(sigma, "flow")
        return share, -sigma * share
    alpha = data / state_scale(sigma, data=data)
    return alpha * alpha, sigma * alpha if prediction == "edm" else -sigma * alpha


def v_from_eps(eps: Tensor, x: Tensor, sigma: float) -> Tensor:
    """v of the state x in sigma space, from its eps."""
    return (eps - sigma * (x - sigma * eps)) / state_scale(sigma)


def eps_from_v(v: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The inverse of `v_from_eps`."""
    return (sigma * x / state_scale(sigma) + v) / state_scale(sigma)


def column(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to multiply maps with."""
    return values[:, None, None, None]


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t given x0 and eps."""
    return column(alpha_bar.sqrt()) * x0 + column((1.0 - alpha_bar).sqrt()) * noise


def noise_in(x: Tensor, x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """eps of the state x_t, given x0."""
    return (x - column(alpha_bar.sqrt()) * x0) / column((1.0 - alpha_bar).sqrt())


def regression_target(
    x0: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: Prediction
) -> Tensor:
    """The training target for x_t: eps, x0 or v."""
    if prediction == "eps":
        return noise
    if prediction == "sample":
        return x0
    return column(alpha_bar.sqrt()) * noise - column((1.0 - alpha_bar).sqrt()) * x0


def predict_x0(
    output: Tensor, x: Tensor, alpha_bar: Tensor, prediction: Prediction, clip: float | None = None
) -> Tensor:
    """x0 from a network's output for x_t, within +-clip if given."""
    signal, noise = column(alpha_bar.sqrt()), column((1.0 - alpha_bar).sqrt())
    if prediction == "eps":
        x0 = (x - noise * output) / signal
    elif prediction == "v":
        x0 = signal * x - noise * output
    else:
        x0 = output
    return x0 if clip is None else x0.clamp(-clip, clip)
