"""Classifier-free guidance (Ho and Salimans, arXiv:2207.12598) as a wrapper around the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.types import Conditioning


class GuidedDenoiser:
    """A Denoiser for one batch of prompts: conditional and unconditional in one network call.

    Guidance applies where `interval[0] < sigma <= interval[1]` (arXiv:2404.07724); elsewhere, and
    at a scale of 1 or less, only the conditional half is computed. `rescale` pulls the standard
    deviation of the guided output back to the conditional one's (arXiv:2305.08891, equation 15).
    """

    def __init__(
        self,
        model: ModelDenoiser,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance_scale: float,
        *,
        rescale: float = 0.0,
        interval: tuple[float, float] = (0.0, math.inf),
    ) -> None:
        self._model = model
        self._cond = cond
        self._both = None if uncond is None else _concatenate(uncond, cond)
        self._scale = guidance_scale
        self._rescale = rescale
        self._interval = interval

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        low, high = self._interval
        if self._both is None or self._scale <= 1.0 or not low < sigma <= high:
            return self._model(x, sigma, self._cond)
        outputs = self._model.predict(torch.cat([x, x]), sigma, self._both)
        if self._rescale == 0.0:
            return self._model.guided(outputs, x, sigma, self._scale)
        uncond, cond = outputs.float().chunk(2)
        guided = _rescale_std(uncond + self._scale * (cond - uncond), cond, self._rescale)
        return self._model.to_denoised(guided, x, sigma)


def _rescale_std(guided: Tensor, cond: Tensor, rescale: float) -> Tensor:
    dims = tuple(range(1, guided.ndim))
    ratio = cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
    return guided * (rescale * ratio + (1.0 - rescale))


def _concatenate(first: Conditioning, second: Conditioning) -> Conditioning:
    """Both along the batch; a field is a tensor in both or None in both."""

    def join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return Conditioning(
        context=torch.cat([first.context, second.context]),
        pooled=join(first.pooled, second.pooled),
        time_ids=join(first.time_ids, second.time_ids),
        concat=join(first.concat, second.concat),
        guidance=join(first.guidance, second.guidance),
    )
