"""Classifier-free guidance (Ho and Salimans, arXiv:2207.12598) as a wrapper around the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffgen.diffusion.course import Guide, Joined
from diffgen.diffusion.denoiser import ModelDenoiser


class GuidedDenoiser:
    """A Denoiser for one batch of pictures: all their prompts in one network call.

    Guidance applies where `interval[0] < sigma <= interval[1]` (arXiv:2404.07724); elsewhere, and
    at a scale of 1 or less, only the conditional half is computed, unless AND joins several. `rescale`
    pulls the standard deviation of the guided output back to the conditional one's
    (arXiv:2305.08891, equation 15).
    """

    def __init__(
        self,
        model: ModelDenoiser,
        guides: Sequence[Guide],
        guidance_scale: float,
        *,
        rescale: float = 0.0,
        interval: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        self._model = model
        self._joined = Joined(guides)
        self._scale = guidance_scale
        self._rescale = rescale
        self._interval = interval

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        joined, scale = self._joined, self._scale_at(sigma)
        if not joined.guided or (scale == 1.0 and not joined.composed):
            outputs = self._model.predict(joined.spread(x), sigma, joined.cond(sigma))
            return self._model.to_denoised(joined.compose(outputs, None), x, sigma)
        states = torch.cat([x, joined.spread(x)])
        outputs = self._model.predict(states, sigma, joined.both(sigma))
        if joined.composed:
            uncond, cond = outputs[: len(x)].float(), outputs[len(x) :].float()
            outputs = torch.cat([uncond, joined.compose(cond, uncond)])
        if self._rescale == 0.0:
            return self._model.guided(outputs, x, sigma, scale)
        uncond, cond = outputs.float().chunk(2)
        guided = uncond + scale * (cond - uncond)
        if scale > 1.0:
            guided = _rescale_std(guided, cond, self._rescale)
        return self._model.to_denoised(guided, x, sigma)

    def _scale_at(self, sigma: float) -> float:
        low, high = self._interval
        return max(self._scale, 1.0) if low < sigma <= high else 1.0


def _rescale_std(guided: Tensor, cond: Tensor, rescale: float) -> Tensor:
    dims = tuple(range(1, guided.ndim))
    ratio = cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return guided * (rescale * ratio + (1.0 - rescale))
