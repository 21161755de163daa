"""The network as a denoiser: the only place that handles half precision.

The state and all arithmetic here are float32; the network gets its own dtype.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from diffgen.diffusion.prediction import x0_weights
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.kernels import ops
from diffgen.types import Conditioning, Prediction


class Network(Protocol):
    """A U-Net: variance-preserving state (B, C, h, w), timesteps (B,), conditioning -> output."""

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor: ...


class ModelDenoiser:
    """A trained network as a function of (x, sigma, conditioning), in sigma space.

    `predict` gives the network's raw output (eps, v or x0) and `to_denoised` converts it to the x0
    estimate; guidance combines raw outputs between the two, where its rescaling is defined
    (arXiv:2305.08891, section 3.4).
    """

    def __init__(
        self,
        network: Network,
        schedule: NoiseSchedule,
        prediction: Prediction,
        dtype: torch.dtype = torch.float32,
        clip: float | None = None,
    ) -> None:
        self._network = network
        self._schedule = schedule
        self._prediction = prediction
        self._dtype = dtype
        self._clip = clip
        self._data = schedule.sigma_data or 1.0

    def __call__(self, x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        return self.to_denoised(self.predict(x, sigma, cond), x, sigma)

    def predict(self, x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
        """The network's raw output for the state x at noise level sigma, in the network's dtype."""
        scaled = (x / self._schedule.state_scale(sigma)).to(self._dtype)
        t = torch.full((x.shape[0],), self._schedule.time(sigma), device=x.device)
        return self._network(scaled, t, cond)

    def to_denoised(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The x0 estimate from the raw output."""
        return self._clipped(self.unclipped(output, x, sigma))

    def unclipped(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The x0 estimate from the raw output, without clipping."""
        keep, gain = x0_weights(self._prediction, sigma, self._data)
        return keep * x + gain * output.float()

    def gain(self, sigma: float) -> float:
        """The derivative of x0 with respect to the raw output."""
        return x0_weights(self._prediction, sigma, self._data)[1]

    def guided(self, outputs: Tensor, x: Tensor, sigma: float, scale: float | Tensor) -> Tensor:
        """The x0 estimate from raw outputs (2 B, C, h, w), unconditional ones first, of states x.

        `scale` is one for all, or (B, 1, 1, 1).
        """
        keep, gain = x0_weights(self._prediction, sigma, self._data)
        return self._clipped(ops.guided(outputs, x, scale=scale, keep=keep, gain=gain))

    def _clipped(self, denoised: Tensor) -> Tensor:
        return denoised if self._clip is None else denoised.clamp(-self._clip, self._clip)
