"""Guidance by a text and by a picture, each with a scale of its own (arXiv:2211.09800, section 3.2.1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffgen.diffusion.conditioning import joined
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.types import Conditioning


class ImageGuidedDenoiser:
    """A Denoiser for U-Nets that were taught to follow an instruction about a picture.

    One network call of three times the batch: with neither, with the picture alone, with both.
    """

    def __init__(
        self,
        model: ModelDenoiser,
        cond: Conditioning,
        uncond: Conditioning,
        *,
        guidance_scale: float,
        image_guidance: float,
    ) -> None:
        """Both have the latents of the picture as `concat`; without it these are zeros."""
        assert uncond.concat is not None
        without = replace(uncond, concat=torch.zeros_like(uncond.concat))
        self._model = model
        self._all = joined([without, uncond, cond])
        self._scales = (image_guidance, guidance_scale)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        outputs = self._model.predict(torch.cat([x, x, x]), sigma, self._all).float()
        without, image, both = outputs.chunk(3)
        by_image, by_text = self._scales
        guided = without + by_image * (image - without) + by_text * (both - image)  # equation 3
        return self._model.to_denoised(guided, x, sigma)
