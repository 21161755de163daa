"""The start of a sampling run beside noise: a picture's latents, its mask, and extra channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffgen.diffusion.masking import MaskedDenoiser
from diffgen.diffusion.prediction import state_scale
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.engine.coder import Coder
from diffgen.engine.edits import Edit
from diffgen.engine.images import to_pixels
from diffgen.models.config import ModelConfig
from diffgen.types import Conditioning, Denoiser


@dataclass(frozen=True, slots=True)
class Beginning:
    """Latents to begin with, (B or 1, C, h, w) float32, or None for noise alone.

    `noisy` latents come from a run that another model began. `mask` (1, 1, h, w) is 1 where to
    repaint; `concat` (1, C', h, w) holds extra input channels of the U-Net.
    """

    latents: Tensor | None = None
    mask: Tensor | None = None
    concat: Tensor | None = None
    noisy: bool = False

    def state(self, plan: SamplingPlan, noise: Tensor) -> Tensor:
        """The first state of a run. A picture repainted as a whole begins from noise alone."""
        if self.noisy and self.latents is not None:
            return self.latents * state_scale(plan.sigmas[0], plan.space)
        blank = self.mask is not None or self.concat is not None
        if self.latents is None or (blank and len(plan.sigmas) == len(plan.whole)):
            return plan.begin(noise)
        return plan.begin(noise, self.latents.expand_as(noise))

    def masked(self, denoise: Denoiser, noise: Tensor) -> MaskedDenoiser | None:
        """Wrap a denoiser so that what the mask does not select is kept, if there is a mask."""
        if self.mask is None or self.latents is None:
            return None
        return MaskedDenoiser(denoise, self.latents.expand_as(noise), self.mask, noise)

    def with_channels(self, cond: Conditioning, dtype: torch.dtype) -> Conditioning:
        """The conditioning of one picture with the extra channels."""
        if self.concat is None:
            return cond
        return replace(cond, concat=self.concat.to(cond.context.device, dtype))


def begin(
    edit: Edit | None,
    config: ModelConfig,
    size: tuple[int, int],
    coder: Coder,
) -> Beginning:
    """The beginning of a run at a size of (width, height) pixels, on the CPU or as encoded."""
    if edit is None and config.task == "text":
        return Beginning()
    if edit is None:
        return Beginning(concat=_channels(None, None, config, size, coder))
    pixels = to_pixels(edit.init, channels=config.pixel_channels)
    z = coder.encode(pixels)
    mask = None if edit.mask is None else latent_mask(edit.mask, config.factor)
    concat = None
    if config.task == "edit":
        concat = z  # as it was trained: not scaled (arXiv:2211.09800's code)
    elif config.task == "inpaint":
        concat = _channels(pixels, edit.mask, config, size, coder)
        mask = None  # the network itself keeps the rest
    return Beginning(coder.vae.to_latents(z), None if mask is None else mask.to(z.device), concat)


def latent_mask(mask: Image.Image, factor: int) -> Tensor:
    """(1, 1, h, w) in [0, 1]: the largest mask value of each latent's pixels."""
    return F.max_pool2d(_mask(mask), factor)


def _mask(mask: Image.Image) -> Tensor:
    return to_pixels(mask, channels=1).add(1.0).div(2.0)


def _channels(
    pixels: Tensor | None,
    mask: Image.Image | None,
    config: ModelConfig,
    size: tuple[int, int],
    coder: Coder,
) -> Tensor:
    """A mask and the latents of what it keeps, grey elsewhere; without a mask, all of it."""
    width, height = size
    hole = torch.ones(1, 1, height, width) if mask is None else (_mask(mask) >= 0.5).float()
    kept = torch.zeros(1, 3, height, width) if pixels is None else pixels * (1.0 - hole)
    left = coder.vae.to_latents(coder.encode(kept))
    return torch.cat([F.max_pool2d(hole, config.factor).to(left), left], dim=1)
