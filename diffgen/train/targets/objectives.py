"""Draws of timesteps and noise, weights and errors of training, as plain functions of tensors.

t: timesteps (B,), whole numbers; alpha_bar: (B,), the schedule's cumulative product at t. Maps are (B,
C, h, w). Everything is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffgen.types import Prediction


def uniform_timesteps(u: Tensor, count: int) -> Tensor:
    """u (B,) uniform in [0, 1) -> t (B,) uniform over 0 .. count-1 (arXiv:2006.11239, alg. 1)."""
    return (u * count).long().clamp(max=count - 1)


def logit_normal_timesteps(z: Tensor, count: int, *, mean: float, std: float) -> Tensor:
    """z (B,) unit Gaussian -> t (B,), with t / count logit-normal (arXiv:2403.03206, eq. 19)."""
    return uniform_timesteps(torch.sigmoid(mean + std * z), count)


def offset_noise(noise: Tensor, shift: Tensor, strength: float) -> Tensor:
    """Noise whose mean varies by picture and channel, so that brightness is learned too.

    noise: (B, C, h, w); shift: (B, C) unit Gaussian (Guttenberg, "Diffusion with offset noise",
    2023; the scheduled cure is zero terminal SNR).
    """
    return noise + strength * shift[:, :, None, None]


def min_snr_weight(alpha_bar: Tensor, prediction: Prediction, gamma: float) -> Tensor:
    """Weights (B,) that bound the pull of easy, nearly clean steps (Hang et al., arXiv:2303.09556).

    The paper's weight of the x0 error is min(SNR, gamma) (section 3.4). With SNR = alpha_bar / (1 -
    alpha_bar), the squared error of eps is SNR times that of x0, and that of v is SNR + 1 times,
    hence the divisors.
    """
    snr = alpha_bar / (1.0 - alpha_bar)
    clipped = snr.clamp(max=gamma)
    if prediction == "eps":
        return clipped / snr
    return clipped / (snr + 1.0) if prediction == "v" else clipped


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of each picture: (B,)."""
    return (output - target).square().flatten(1).mean(dim=1)


def huber_error(output: Tensor, target: Tensor, c: float) -> Tensor:
    """The pseudo-Huber error of each picture, (B,): quadratic below c, linear far above.

    2 c (sqrt(d^2 + c^2) - c), whose curvature at 0 is that of d^2 (Charbonnier et al., 1997; for
    diffusion: arXiv:2403.16728, section 4).
    """
    distance = ((output - target).square() + c * c).sqrt() - c
    return 2.0 * c * distance.flatten(1).mean(dim=1)


def edge_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean absolute error of each picture's differences between neighbouring pixels: (B,).

    The gradient difference loss of Mathieu et al., arXiv:1511.05440, eq. 6, with signed gradients.
    """
    error = output - target
    across = error.diff(dim=3).abs().flatten(1).mean(dim=1)
    return across + error.diff(dim=2).abs().flatten(1).mean(dim=1)


def kl_to_unit(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each picture, per latent number: (B,).

    Kingma and Welling, arXiv:1312.6114, appendix B.
    """
    return kl_between(mean, logvar, mean.new_zeros(()), logvar.new_zeros(()))


def kl_between(mean: Tensor, logvar: Tensor, to_mean: Tensor, to_logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(to_mean, exp(to_logvar))), as `kl_to_unit`: (B,)."""
    apart = (mean - to_mean).square() / to_logvar.exp()
    change = logvar - to_logvar
    terms = 0.5 * (apart + change.exp() - 1.0 - change)
    return terms.flatten(1).mean(dim=1)
