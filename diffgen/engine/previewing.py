"""Preview latents during a run, quickly and without side effects on the result.

Networks cache state by size, and change format after an overflow. Previews therefore load what they
need a second time instead of sharing the engine's networks.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffgen.engine.images import to_images
from diffgen.engine.networks import load_vae
from diffgen.models.tiny import TinyDecoder
from diffgen.models.vae import AnyAutoencoder
from diffgen.weights.tiny import load_decoder

if TYPE_CHECKING:
    from diffgen.engine.engine import Engine

SIDE, SPOTS = 16, 5  # of the colour test picture, in latents, and of its spots


class Previewer:
    """Preview the latents of one engine: by its tiny decoder, else one pixel a latent."""

    def __init__(self, engine: Engine) -> None:
        self._device, self._model = engine.device, engine.model
        self._config = engine.config

    @torch.inference_mode()
    def images(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) as one picture each. Raises WeightsError from loading."""
        if self._config.vae is None:
            return to_images(latents)
        if self._tiny:
            return to_images(self._tiny.decode(latents.to(self._device)))
        rows = latents.float().cpu().movedim(1, -1)
        pixels = rows @ self._colours[:-1] + self._colours[-1]
        return to_images(pixels.movedim(-1, 1))

    @cached_property
    def _tiny(self) -> TinyDecoder | None:
        file = self._model.decoder
        if file is None:
            return None
        return load_decoder(file, self._model.checkpoint.config, self._device, torch.float32)

    @cached_property
    def _colours(self) -> Tensor:
        """(C + 1, channels of a pixel): the colour that each latent channel adds, and the offset.

        A least-squares fit to a picture of soft colour spots and its latents.
        """
        vae = load_vae(self._model.checkpoint, self._device, torch.float32)
        pixels = soft_spots(self._config.pixel_channels, SIDE * self._config.factor)
        latents = encoded(vae, pixels.to(self._device))
        wanted = F.avg_pool2d(pixels, self._config.factor).flatten(2)[0].T
        known = F.pad(latents.flatten(2)[0].T, (0, 1), value=1.0)
        found: Tensor = torch.linalg.lstsq(known.double(), wanted.double()).solution
        return found.float()


def soft_spots(channels: int, side: int) -> Tensor:
    """(1, channels, side, side) in [-1, 1]: many colours without sharp edges."""
    random = torch.Generator().manual_seed(0)
    spots = torch.rand(1, channels, SPOTS, SPOTS, generator=random) * 2.4 - 1.2
    return F.interpolate(spots, (side, side), mode="bicubic", align_corners=True).clamp(-1.0, 1.0)


def encoded(vae: AnyAutoencoder, pixels: Tensor) -> Tensor:
    """Encode to latents (B, C, h, w) float32 on the CPU."""
    return vae.to_latents(vae.encode(pixels)[0].float()).cpu()
