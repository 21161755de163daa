"""Repaint a part of a picture with any model and sampler, by a wrapper around the denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from diffgen.types import Denoiser


class MaskedDenoiser:
    """A Denoiser that keeps the picture where the mask is 0.

    There the network sees the picture with the state's noise level (the known region of RePaint,
    arXiv:2201.09865, equation 8a), always of one draw, and its estimate is replaced by the picture
    itself. Between 0 and 1 the estimate is mixed. Samplers treat each element of the state by
    itself, so they need no change.
    """

    def __init__(self, denoise: Denoiser, init: Tensor, mask: Tensor, noise: Tensor) -> None:
        """init, noise: (B, C, h, w) float32; mask: (B or 1, 1, h, w) in [0, 1], 1 = repaint."""
        self._denoise = denoise
        self._init, self._mask, self._noise = init, mask, noise

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        seen = torch.where(self._mask > 0.0, x, self._init + sigma * self._noise)
        return self.blended(self._denoise(seen, sigma))

    def blended(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) inside the mask, the picture's elsewhere."""
        return torch.lerp(self._init, latents, self._mask)
