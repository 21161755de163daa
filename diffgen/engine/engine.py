"""The engine: one loaded model, and the way from prompts to pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from diffgen.device import Precision, memory_errors, pick_device
from diffgen.diffusion.course import Guide
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guided import GuidedDenoiser
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.adapters import Adapters
from diffgen.engine.clock import Clock, paced
from diffgen.engine.finite import not_finite
from diffgen.engine.images import to_images
from diffgen.engine.metadata import make_record
from diffgen.engine.model import Model
from diffgen.engine.networks import load_networks, load_vae
from diffgen.engine.origin import Origin
from diffgen.engine.request import FAST_EVERY, FAST_FIRST, GeneratePlan, GenerateRequest, Picture
from diffgen.engine.words import WordReport
from diffgen.errors import UsageError
from diffgen.kernels.ops import check_backend
from diffgen.models.fast import graphs
from diffgen.models.fast.deep_cache import DeepCache
from diffgen.models.fast.graphs import Step
from diffgen.models.fast.inference import prepare
from diffgen.models.vae import AnyAutoencoder, Autoencoder
from diffgen.settings.groups import DEFAULT_MODEL, Source
from diffgen.text.conditioner import Conditioner, Sizes, TextSettings
from diffgen.text.unknown_words import KnownWords
from diffgen.types import (
    Conditioning,
    DeviceName,
    DtypeName,
    LoraRef,
    StepCallback,
    ignore,
)

logger = logging.getLogger("diffgen")


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A finished picture with everything needed to make it again.

    `record` holds plain values only: prompt, seed, all settings, versions, and `timings` in
    seconds (this picture's share of its batch).
    """

    image: Image.Image
    record: dict[str, Any]


class Engine:
    """One model in memory; no method computes gradients."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        precision: Precision,
        loras: Sequence[LoraRef] = (),
    ) -> None:
        """Load the weights of an opened model; `Engine.load` does all three steps."""
        start = time.perf_counter()
        check_backend(device)
        self.model, self.config = model, model.checkpoint.config
        self.device, self.precision, self.loras = device, precision, tuple(loras)
        self._origin = Origin(model, loras)
        self.schedule = NoiseSchedule.from_config(self.config.schedule)
        networks = load_networks(model.checkpoint, device, precision)
        self.conditioner = Conditioner(self.config, networks.tokenizers, networks.encoders)
        # A user's LoRA may have taught it more.
        known = None if loras else KnownWords.read(model.checkpoint.source)
        self._words = WordReport(model.name, self.conditioner, known)
        self.unet, self.vae = networks.unet, _prepared(networks.vae)
        self.adapters = Adapters(model.checkpoint, self._weights_changed)
        self.adapters.merge(networks.adaptable, [*model.loras, *loras])
        prepare(self.unet)
        self._graphs: graphs.Graphs | None = None
        self.steps = self._steps()
        logger.info(
            "%s from %s on %s in %s, loaded in %.2f s",
            model.name,
            model.checkpoint.source,
            device,
            precision.name,
            time.perf_counter() - start,
        )

    @classmethod
    def load(
        cls,
        source: str | Path | Source | Model = DEFAULT_MODEL,
        *,
        device: DeviceName = "auto",
        dtype: DtypeName = "auto",
        loras: Sequence[LoraRef] = (),
    ) -> Self:
        """Open and load a model by name or path, with LoRA files merged into its weights.

        A `Source` also says what to take instead of what the model's files have or say.
        Raises UsageError for an unknown name, WeightsError or ConfigError for a damaged model or a
        LoRA that does not fit it, DeviceError for a device that is not there.
        """
        model = _opened(source)
        place = pick_device(device)
        if dtype == "fp16" and place.type == "cpu":
            logger.warning("fp16 on a CPU takes many times as long as --dtype auto")
        vae = model.checkpoint.config.vae
        overflows = vae is not None and vae.force_upcast
        return cls(model, place, Precision.pick(dtype, place, vae_overflows=overflows), loras)

    def use_loras(self, loras: Sequence[LoraRef]) -> None:
        """Draw with these LoRAs instead of those before; LoRAs of the model itself stay.

        The weights are to the bit those of `Engine.load` with these LoRAs. The model is not read
        again: base weights of the layers that LoRAs change are read when a layer is first changed
        after loading, and kept from then on, in memory of their size. Raises what loading a LoRA
        raises, and nothing has changed then.
        """
        origin = Origin(self.model, loras)  # before they are read
        self.adapters.use([*self.model.loras, *loras])
        self.loras, self._origin = tuple(loras), origin

    def plan(self, request: GenerateRequest) -> GeneratePlan:
        """The request with this model's defaults. Raises UsageError where it does not fit."""
        return self.model.plan(request)

    def generate(
        self, request: GenerateRequest | GeneratePlan, *, on_step: StepCallback = ignore
    ) -> Iterator[GeneratedImage]:
        """Make the pictures of a request, in order, each yielded as soon as its batch is done.

        Prompts longer than the text encoder takes and a decoder that had to be run again are
        logged as warnings. Raises UsageError before the first picture where the request does not
        fit the model, DiffgenError where the network's numbers overflow and DeviceError where
        memory runs out.
        """
        plan = self.plan(request) if isinstance(request, GenerateRequest) else request
        _refuse_tags(plan)
        cut = self._words.report(plan)
        logger.info("%s", plan.summary())
        origin = self._origin.record  # now, not when a picture waits to be saved
        for batch in plan.batches():
            with memory_errors():
                images, timings = self._make(plan, batch, on_step)
            for picture, image in zip(batch, images, strict=True):
                record = make_record(
                    plan,
                    picture,
                    origin=origin,
                    dtype=self.precision.name,
                    device=self.device.type,
                    cut=cut.get(picture.prompt, ""),
                    timings=timings,
                )
                yield GeneratedImage(image, record)

    def _make(
        self, plan: GeneratePlan, batch: Sequence[Picture], on_step: StepCallback
    ) -> tuple[list[Image.Image], dict[str, float]]:
        """The pictures of one batch, and seconds per picture by stage."""
        clock = Clock(self.device, len(batch))
        prompts = [picture.prompt for picture in batch]
        guides = self.guides(plan, prompts)
        clock.lap("text")
        seeds = [picture.seed for picture in batch]
        latents = self.sample(plan, seeds, guides, on_step=on_step)
        clock.lap("sampling")
        images = self.decode(latents)
        clock.lap("decode")
        return images, clock.seconds

    @torch.inference_mode()
    def guides(self, plan: GeneratePlan, prompts: Sequence[str]) -> list[Guide]:
        """What the U-Net is told of each picture over the run of a plan, text in its dtype."""
        request, size = plan.request, (plan.width, plan.height)
        sizes = Sizes(
            original=request.original_size or size,
            target=request.target_size or size,
            crop=request.crop or (0, 0),
        )
        settings = TextSettings(sigmas=plan.sampling.sigmas, sizes=sizes, layer=plan.clip_skip)
        made: dict[str, Guide] = {}
        for prompt in dict.fromkeys(prompts):
            guide = self.conditioner.guide(*plan.texts(prompt), settings)
            made[prompt] = guide.map(self._in_unets_dtype)
        return [made[prompt] for prompt in prompts]

    def _in_unets_dtype(self, cond: Conditioning) -> Conditioning:
        # Sizes in pixels have more digits than bf16 keeps.
        return cond.map(
            lambda tensor: tensor.to(
                self.device, tensor.dtype if tensor is cond.time_ids else self.precision.unet
            )
        )

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w) float32, by the mean of z."""
        mean, _ = self.vae.encode(pixels.to(self.device, self.precision.vae))
        return self.vae.to_latents(mean.float())

    @torch.inference_mode()
    def sample(
        self,
        plan: GeneratePlan,
        seeds: Sequence[int],
        guides: Sequence[Guide],
        *,
        on_step: StepCallback = ignore,
    ) -> Tensor:
        """Latents (B, C, h, w) float32, one image per seed and guide.

        Raises DiffgenError when they are not finite.
        """
        denoise = self.adapters.follow(self.denoiser(plan, guides), plan.sampling.sigmas)
        shape = self.config.latent_shape(plan.width, plan.height)
        reporter = paced(on_step, self.device)
        latents = plan.sampling.run(denoise, seeds, shape, self.device, on_step=reporter)
        if not bool(torch.isfinite(latents).all()):
            raise not_finite("sampling", self.precision.unet, self.model.checkpoint)
        return latents

    def denoiser(self, plan: GeneratePlan, guides: Sequence[Guide]) -> GuidedDenoiser:
        """The guided model as the sampler sees it."""
        schedule = self.config.schedule
        network = DeepCache(
            *self.steps, every=FAST_EVERY if plan.request.fast else 1, first=FAST_FIRST
        )
        model = ModelDenoiser(
            network, self.schedule, schedule.prediction, self.precision.unet, schedule.clip
        )
        if self.config.embeds_guidance:
            # Guidance was distilled into this U-Net: it is an input, not a second evaluation.
            told = torch.tensor([plan.guidance_scale], device=self.device)
            guides = [
                replace(g.map(lambda c: replace(c, guidance=told)), uncond=None) for g in guides
            ]
        return GuidedDenoiser(model, guides, plan.guidance)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) to pictures.

        A decoder that overflows in half precision is run again in float32, and stays there.
        Raises DiffgenError when that does not help.
        """
        pixels = self.vae.decode(latents.to(self.precision.vae))
        if not bool(torch.isfinite(pixels).all()) and self.precision.vae != torch.float32:
            logger.warning("the decoder overflowed in half precision; decoded again in fp32")
            self.precision = replace(self.precision, vae=torch.float32)
            checkpoint = self.model.checkpoint
            self.vae = _prepared(load_vae(checkpoint, self.device, torch.float32))
            pixels = self.vae.decode(latents)
        if not bool(torch.isfinite(pixels).all()):
            raise not_finite("decoding", self.precision.vae, self.model.checkpoint)
        return to_images(pixels)

    def _steps(self) -> tuple[Step, Step]:
        """The U-Net with and without its lower levels, by CUDA graphs where there are any."""
        if not graphs.wanted(self.device):
            return self.unet.compute, self.unet.reuse
        self._graphs = graphs.Graphs(self.unet, graphs.CudaCapture())
        return self._graphs.of(self.unet.compute), self._graphs.of(self.unet.reuse)

    def _weights_changed(self) -> None:
        """For LoRAs exchanged: nothing of the networks' earlier answers is true any more."""
        self.conditioner.forget()
        if self._graphs:
            self._graphs.forget()


def _prepared(vae: AnyAutoencoder) -> AnyAutoencoder:
    if isinstance(vae, Autoencoder):
        prepare(vae)
    return vae


def _refuse_tags(plan: GeneratePlan) -> None:
    """A LoRA asked for in a prompt would be missing from the picture."""
    for prompt in plan.request.prompts:
        if tags := plan.understood(prompt).loras:
            raise UsageError(f"<lora:{tags[0].name}> in a prompt: give --lora FILE:WEIGHT instead")


def _opened(source: str | Path | Source | Model) -> Model:
    if isinstance(source, Source):
        return Model.open_source(source)
    return source if isinstance(source, Model) else Model.open(source)
