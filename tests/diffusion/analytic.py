"""Data distributions whose best denoiser is known in closed form, and exact solutions for them.

All in double precision: the samplers are plain arithmetic over tensors, so a float64 state shows
their own error far below the rounding of the float32 they normally run in.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from diffgen.types import Steps

Denoise = Callable[[Tensor, float], Tensor]


def last(steps: Steps) -> Tensor:
    """The state that a sampler ends with."""
    *_, (_, x, _) = steps
    return x


def gaussian(std: float, mean: float = 0.0) -> Denoise:
    """E[x0 | x] for data N(mean, std^2), independent in every element: linear in x."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)

    return denoise


def mixture() -> Denoise:
    """E[x0 | x] for three Gaussians in two dimensions (the channels): curved at every noise level.

    By Bayes' rule it is the mean of the components' estimates, weighted by how likely each one is
    to have made x at this noise level.
    """
    means = torch.tensor([[1.0, 0.6], [-0.8, 0.9], [0.2, -1.1]], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means, weights = means[..., None, None], weights[:, None, None, None]
    std = 0.5

    def denoise(x: Tensor, sigma: float) -> Tensor:
        variance = std**2 + sigma**2
        offsets = x[:, None] - means  # (B, 3, 2, h, w)
        likelihood = weights.log() - offsets.square().sum(2, keepdim=True) / (2.0 * variance)
        estimates = means + (std**2 / variance) * offsets
        return (likelihood.softmax(1) * estimates).sum(1)

    return denoise


def points(sigma: float, count: int = 8) -> Tensor:
    """(count, 2, 1, 1) float64 states at a noise level, the same on every call."""
    generator = torch.Generator().manual_seed(7)
    return sigma * torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)


def solve(
    denoise: Denoise,
    x: Tensor,
    sigma: float,
    sigma_end: float,
    rate: Callable[[float], float] = lambda sigma: 1.0,
) -> Tensor:
    """The exact solution of dx / dlog(sigma) = rate(sigma) (x - denoised), to ten digits.

    A rate of 1 is the probability-flow ODE; the reverse SDE without its noise has a larger one.
    """

    def slope(log_sigma: float, flat: np.ndarray) -> np.ndarray:
        level = math.exp(log_sigma)
        state = torch.from_numpy(flat).reshape(x.shape)
        return (rate(level) * (state - denoise(state, level))).flatten().numpy()

    solution = solve_ivp(
        slope,
        (math.log(sigma), math.log(sigma_end)),
        x.flatten().numpy(),
        method="DOP853",
        rtol=1e-11,
        atol=1e-12,
    )
    return torch.from_numpy(solution.y[:, -1]).reshape(x.shape)
