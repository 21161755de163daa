"""One batch of pictures: text, sampling once or twice, decoding, blending into the originals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from diffgen.diffusion.course import Guide
from diffgen.engine.clock import Clock
from diffgen.engine.editing import Beginning
from diffgen.engine.images import to_images, to_pixels
from diffgen.engine.metadata import make_record
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.errors import WeightsError, one_line
from diffgen.files import expanded
from diffgen.types import Size

if TYPE_CHECKING:
    from diffgen.engine.engine import Engine

NEXT_SEEDS = 1 << 63

# The signature of `Engine.sample`: a plan, seeds, guides and the run's beginning.
Asked: TypeAlias = tuple[GeneratePlan, Sequence[int], Sequence[Guide], Beginning]


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A finished picture with everything needed to reproduce it.

    `record` holds plain values only: prompt, seed, all settings, versions, and `timings` in seconds
    (this picture's share of its batch).
    """

    image: Image.Image
    record: dict[str, Any]


class Drawing:
    """Everything of a batch except sampling, which `Engine.draw` does.

    `latents` (B, C, h, w) are the result of the last run of `passes`; the caller sets them before
    it asks for the next.
    """

    latents: Tensor

    def __init__(self, engine: Engine, plan: GeneratePlan, batch: Sequence[Picture]) -> None:
        self._engine, self._plan, self._batch = engine, plan, batch
        self._origin = engine.origin  # now, not when the picture is saved
        self._clock = Clock(engine.device, len(batch))
        self._edit = plan.edits[batch[0].init] if plan.edits else None
        # The plan of each picture: that of the batch except for what may differ in a call.
        self._own = [each.own.of([each]) if each.own else plan for each in batch]

    def passes(self) -> Iterator[tuple[Engine, Asked]]:
        """The sampling runs: the first, one at a larger size, and a refiner's."""
        engine, plan = self._engine, self._plan
        own, seeds = self._own, [picture.seed for picture in self._batch]
        beginning = engine.begin(plan, self._edit)
        guides = self._guides(engine, own)
        self._clock.lap("text")
        yield engine, (plan, seeds, guides, beginning)
        if plan.second is not None:
            larger = Beginning(self._larger(plan.second))
            guides = self._guides(engine, [each.second or each for each in own])
            yield engine, (plan.second, seeds, guides, larger)
        if plan.refined is not None:
            model, rest = plan.refined
            refiner = engine.refiner(model)
            # Noise of its own: the first pass has used that of the same seeds.
            others = [(seed + NEXT_SEEDS) % 2**64 for seed in seeds]
            rests = [each.refined[1] if each.refined else each for each in own]
            begun = Beginning(self.latents, noisy=True)
            yield refiner, (rest, others, self._guides(refiner, rests), begun)

    def _guides(self, engine: Engine, plans: Sequence[GeneratePlan]) -> list[Guide]:
        """Guides for the network, each picture by its own plan."""
        pairs = zip(plans, self._batch, strict=True)
        guides = [engine.guides(plan, [picture.prompt])[0] for plan, picture in pairs]
        if all(plan is plans[0] for plan in plans):
            return guides
        return [
            replace(guide, scale=plan.guidance_scale)
            for guide, plan in zip(guides, plans, strict=True)
        ]

    def finish(self, cut: Mapping[str, str]) -> list[GeneratedImage]:
        """The pictures with their records; `cut` holds ignored words by prompt."""
        self._clock.lap("sampling")
        images = self._engine.decode(self.latents)
        self._clock.lap("decode")
        if self._edit:
            images = [self._edit.finish(image) for image in images]
        made: dict[str, Any] = {
            "origin": self._files(),
            "dtype": self._engine.precision.name,
            "device": self._engine.device.type,
            "timings": self._clock.seconds,
        }
        records = [
            make_record(own, each, cut=cut.get(each.prompt, ""), **made)
            for own, each in zip(self._own, self._batch, strict=True)
        ]
        return [GeneratedImage(*pair) for pair in zip(images, records, strict=True)]

    def _files(self) -> dict[str, Any]:
        """The origin of all models and LoRAs in use."""
        if self._plan.refined is None:
            return self._origin
        refiner = self._engine.refiner(self._plan.refined[0])
        return {**self._origin, "refiner_files": refiner.origin["model_files"]}

    @torch.inference_mode()
    def _larger(self, second: GeneratePlan) -> Tensor:
        """Latents (B, C, h, w) of the first pass at the size of the second.

        Every method but `latent` goes through 8-bit pictures, as if the first pass had been saved
        and opened again.
        """
        engine, first = self._engine, self._plan
        upscaler, size = first.request.hires_upscaler, (second.width, second.height)
        if upscaler == "latent":
            shape = engine.config.latent_shape(*size)
            return F.interpolate(self.latents, shape[1:], mode="bilinear", align_corners=False)
        if self._edit and first.strength == 0.0:
            # Nothing was drawn: the picture itself, without a round trip through the autoencoder.
            images = [self._edit.init] * len(self._batch)
        else:
            images = engine.decode(self.latents)
        images = [enlarged(image, size, upscaler) for image in images]
        pixels = [to_pixels(image, channels=engine.config.pixel_channels) for image in images]
        return torch.cat([engine.encode_image(each) for each in pixels])


def enlarged(image: Image.Image, size: Size, upscaler: str) -> Image.Image:
    """A picture at another size, by lanczos or by the file of an upscaling model.

    Raises WeightsError for a file that is no upscaling model.
    """
    if upscaler != "lanczos":
        image = _by_model(image, expanded(upscaler))
    return image if image.size == size else image.resize(size, Resampling.LANCZOS)


def _by_model(image: Image.Image, path: Path) -> Image.Image:
    try:
        spandrel = import_module("spandrel")  # an optional package
        model = spandrel.ModelLoader(device="cpu").load_from_file(path)
    except Exception as error:
        raise WeightsError(f"{path} is no upscaling model: {one_line(str(error))}") from error
    with torch.inference_mode():
        # Such models take and give colours from 0 to 1.
        large = model(to_pixels(image, channels=3).add(1.0).div(2.0))
    return to_images(large * 2.0 - 1.0)[0]
