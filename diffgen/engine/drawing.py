"""One batch of pictures: text, sampling once or twice, decoding, and back into what they began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffgen.device import memory_errors
from diffgen.diffusion.course import Guide
from diffgen.engine.clock import Clock
from diffgen.engine.editing import Beginning
from diffgen.engine.enlarging import enlarged
from diffgen.engine.images import to_pixels
from diffgen.engine.metadata import make_record
from diffgen.engine.request import GeneratePlan, Picture
from diffgen.types import StepCallback

if TYPE_CHECKING:
    from diffgen.engine.engine import Engine

NEXT_SEEDS = 1 << 63


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A finished picture with everything needed to make it again.

    `record` holds plain values only: prompt, seed, all settings, versions, and `timings` in
    seconds (this picture's share of its batch).
    """

    image: Image.Image
    record: dict[str, Any]


def draw(
    engine: Engine,
    plan: GeneratePlan,
    batch: Sequence[Picture],
    cut: Mapping[str, str],
    on_step: StepCallback,
) -> list[GeneratedImage]:
    """The pictures of one batch with their records; `cut` are ignored words by prompt."""
    origin = engine.origin  # now, not when a picture waits to be saved
    with memory_errors():
        images, timings = _images(engine, plan, batch, on_step)
    if plan.refined:
        files = engine.refiner(plan.refined[0]).origin["model_files"]
        origin = {**origin, "refiner_files": files}
    made: dict[str, Any] = {
        "origin": origin,
        "dtype": engine.precision.name,
        "device": engine.device.type,
        "timings": timings,
    }
    records = [
        make_record(own, each, cut=cut.get(each.prompt, ""), **made)
        for own, each in zip(_own(plan, batch), batch, strict=True)
    ]
    return [GeneratedImage(*pair) for pair in zip(images, records, strict=True)]


def _images(
    engine: Engine, plan: GeneratePlan, batch: Sequence[Picture], on_step: StepCallback
) -> tuple[list[Image.Image], dict[str, float]]:
    """The pictures of one batch, and seconds per picture by stage."""
    clock = Clock(engine.device, len(batch))
    edit = plan.edits[batch[0].init] if plan.edits else None
    beginning = engine.begin(plan, edit)
    seeds = [picture.seed for picture in batch]
    own = _own(plan, batch)
    guides = _guides(engine, own, batch)
    clock.lap("text")
    latents = engine.sample(plan, seeds, guides, beginning, on_step=on_step)
    if plan.second is not None:
        untouched = edit.init if edit and plan.strength == 0.0 else None
        larger = Beginning(_larger(engine, plan, plan.second, latents, untouched))
        guides = _guides(engine, [each.second or each for each in own], batch)
        latents = engine.sample(plan.second, seeds, guides, larger, on_step=on_step)
    if plan.refined is not None:
        model, rest = plan.refined
        refiner = engine.refiner(model)
        # Noise of its own on the way: that of the same seeds has been used.
        others = [(seed + NEXT_SEEDS) % 2**64 for seed in seeds]
        rests = [each.refined[1] if each.refined else each for each in own]
        guides = _guides(refiner, rests, batch)
        begun = Beginning(latents, noisy=True)
        latents = refiner.sample(rest, others, guides, begun, on_step=on_step)
    clock.lap("sampling")
    images = engine.decode(latents)
    clock.lap("decode")
    return [edit.finish(image) for image in images] if edit else images, clock.seconds


def _own(plan: GeneratePlan, batch: Sequence[Picture]) -> list[GeneratePlan]:
    """The plan of each picture: that of the batch but for what may differ in a call."""
    return [each.own.of([each]) if each.own else plan for each in batch]


def _guides(engine: Engine, plans: Sequence[GeneratePlan], batch: Sequence[Picture]) -> list[Guide]:
    """What the network is told of each picture by its own plan."""
    pairs = zip(plans, batch, strict=True)
    guides = [engine.guides(plan, [picture.prompt])[0] for plan, picture in pairs]
    if all(plan is plans[0] for plan in plans):
        return guides
    return [
        replace(guide, scale=plan.guidance_scale) for guide, plan in zip(guides, plans, strict=True)
    ]


@torch.inference_mode()
def _larger(
    engine: Engine,
    first: GeneratePlan,
    second: GeneratePlan,
    latents: Tensor,
    untouched: Image.Image | None,
) -> Tensor:
    """Latents (B, C, h, w) of a first pass at the size of the second.

    All but `latent` go through 8-bit pictures, as a picture that was saved and opened again does.
    """
    upscaler, size = first.request.hires_upscaler, (second.width, second.height)
    if upscaler == "latent":
        shape = engine.config.latent_shape(*size)
        return F.interpolate(latents, shape[1:], mode="bilinear", align_corners=False)
    # Where nothing of a picture was drawn, it is enlarged itself, not what an autoencoder leaves of it.
    images = [untouched] * len(latents) if untouched else engine.decode(latents)
    images = [enlarged(image, size, upscaler) for image in images]
    pixels = [to_pixels(image, channels=engine.config.pixel_channels) for image in images]
    return torch.cat([engine.encode_image(each) for each in pixels])
