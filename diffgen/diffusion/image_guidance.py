"""Guidance by a text and a picture, each with its own scale (arXiv:2211.09800, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffgen.diffusion.conditioning import joined
from diffgen.diffusion.course import Guide, Joined, Scales
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.types import Conditioning


class ImageGuidedDenoiser:
    """A Denoiser for U-Nets trained to edit a picture by instructions.

    One network call of three times the batch: with neither, with the picture alone, with both.
    """

    def __init__(
        self,
        model: ModelDenoiser,
        guides: Sequence[Guide],
        *,
        guidance_scale: float,
        image_guidance: float,
    ) -> None:
        """All conditioning has the picture's latents as `concat`; rows without it have zeros.

        Guides may have text scales of their own.
        """
        self._model = model
        self._joined = Joined(guides)
        self._by_image, self._by_text = image_guidance, guidance_scale
        self._scales = Scales(guide.scale for guide in guides)
        self._latest: tuple[Conditioning, Conditioning] | None = None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x and result: (B, C, h, w) float32."""
        count, joint = len(x), self._joined
        states = torch.cat([x, x, joint.spread(x)])
        outputs = self._model.predict(states, sigma, self._all(sigma, count)).float()
        without, image = outputs[:count], outputs[count : 2 * count]
        both = joint.compose(outputs[2 * count :], image)
        by_text = self._scales.at(self._by_text, x.device)
        guided = (
            without + self._by_image * (image - without) + by_text * (both - image)
        )  # equation 3
        return self._model.to_denoised(guided, x, sigma)

    def _all(self, sigma: float, count: int) -> Conditioning:
        """The same object as long as no prompt changes: networks cache by identity."""
        both = self._joined.rows(sigma, uncond=True)
        if self._latest is None or self._latest[0] is not both:
            without = both.map(lambda tensor: tensor[:count])
            assert without.concat is not None
            without = replace(without, concat=torch.zeros_like(without.concat))
            self._latest = both, joined([without, both])
        return self._latest[1]
