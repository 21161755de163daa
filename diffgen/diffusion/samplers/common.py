"""Helpers of several samplers: noise splitting and polynomial weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffgen.types import NoiseSource

if TYPE_CHECKING:
    from torch import Tensor


def log_step(sigma: float, sigma_next: float) -> float:
    """h = lambda_next - lambda with lambda = -log(sigma), half the log-SNR; infinite to 0."""
    return math.log(sigma / sigma_next) if sigma_next > 0.0 else math.inf


def ancestral_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up) with sigma_down^2 + sigma_up^2 = sigma_next^2.

    sigma_up is the standard deviation of DDIM's noise in sigma space (arXiv:2010.02502, eq. 16).
    """
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = min(sigma_next, eta * math.sqrt(max(variance, 0.0)))
    return math.sqrt(max(sigma_next**2 - sigma_up**2, 0.0)), sigma_up


def churn(x: Tensor, sigma: float, amount: float, noise: NoiseSource) -> tuple[Tensor, float]:
    """Raise the noise level by a factor of 1 + amount (arXiv:2206.00364, algorithm 2)."""
    gamma = min(amount, math.sqrt(2.0) - 1.0)
    if gamma <= 0.0:
        return x, sigma
    sigma_hat = sigma * (1.0 + gamma)
    return x + math.sqrt(sigma_hat**2 - sigma**2) * noise(sigma, sigma_hat), sigma_hat


def solve_vandermonde(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Weights w with sum_k w[k] * nodes[k]^j = moments[j] for j = 0 .. n-1.

    These are the weights of the interpolating polynomial through distinct nodes under any linear
    functional, given by its values on monomials: every linear multistep method in this package
    is one choice of functional. Bjorck and Pereyra, Math. Comp. 24 (1970), primal system.
    """
    weights = list(moments)
    count = len(weights)
    for k in range(count - 1):
        for i in range(count - 1, k, -1):
            weights[i] -= nodes[k] * weights[i - 1]
    for k in range(count - 2, -1, -1):
        for i in range(k + 1, count):
            weights[i] /= nodes[i] - nodes[i - k - 1]
        for i in range(k, count - 1):
            weights[i] -= weights[i + 1]
    return weights
