"""One batch of pictures: text, sampling once or twice, decoding, and back into what they began with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffgen.engine.clock import Clock
from diffgen.engine.editing import Beginning
from diffgen.engine.enlarging import enlarged
from diffgen.engine.images import to_pixels
from diffgen.engine.request import GeneratePlan, Picture
from diffgen.types import StepCallback

if TYPE_CHECKING:
    from diffgen.engine.engine import Engine

NEXT_SEEDS = 1 << 63


def draw(
    engine: Engine, plan: GeneratePlan, batch: Sequence[Picture], on_step: StepCallback
) -> tuple[list[Image.Image], dict[str, float]]:
    """The pictures of one batch, and seconds per picture by stage."""
    clock = Clock(engine.device, len(batch))
    edit = plan.edits[batch[0].init] if plan.edits else None
    beginning = engine.begin(plan, edit)
    prompts = [picture.prompt for picture in batch]
    seeds = [picture.seed for picture in batch]
    guides = engine.guides(plan, prompts)
    clock.lap("text")
    latents = engine.sample(plan, seeds, guides, beginning, on_step=on_step)
    if plan.second is not None:
        larger = Beginning(_larger(engine, plan, plan.second, latents))
        guides = engine.guides(plan.second, prompts)
        latents = engine.sample(plan.second, seeds, guides, larger, on_step=on_step)
    if plan.refined is not None:
        model, rest = plan.refined
        refiner = engine.refiner(model)
        # Noise of its own on the way: that of the same seeds has been used.
        others = [(seed + NEXT_SEEDS) % 2**64 for seed in seeds]
        guides = refiner.guides(rest, prompts)
        begun = Beginning(latents, noisy=True)
        latents = refiner.sample(rest, others, guides, begun, on_step=on_step)
    clock.lap("sampling")
    images = engine.decode(latents)
    clock.lap("decode")
    return [edit.finish(image) for image in images] if edit else images, clock.seconds


@torch.inference_mode()
def _larger(engine: Engine, first: GeneratePlan, second: GeneratePlan, latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) of a first pass at the size of the second.

    All but `latent` go through 8-bit pictures, as a picture that was saved and opened again does.
    """
    upscaler, size = first.request.hires_upscaler, (second.width, second.height)
    if upscaler == "latent":
        shape = engine.config.latent_shape(*size)
        return F.interpolate(latents, shape[1:], mode="bilinear", align_corners=False)
    images = [enlarged(image, size, upscaler) for image in engine.decode(latents)]
    pixels = [to_pixels(image, channels=engine.config.pixel_channels) for image in images]
    return torch.cat([engine.encode_image(each) for each in pixels])
