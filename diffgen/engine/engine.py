"""One loaded model: encodes prompts, samples latents and decodes them to pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from diffgen.device import Precision, memory_errors, pick_device
from diffgen.diffusion.course import Guide
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.adapters import Adapters
from diffgen.engine.clock import paced
from diffgen.engine.coder import Coder
from diffgen.engine.drawing import Drawing, GeneratedImage
from diffgen.engine.editing import Beginning, begin
from diffgen.engine.edits import Edit
from diffgen.engine.finite import not_finite
from diffgen.engine.guiding import guides_of, steered
from diffgen.engine.model import Model
from diffgen.engine.networks import load_networks
from diffgen.engine.origin import Origin
from diffgen.engine.plan import FAST_EVERY, FAST_FIRST, GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest
from diffgen.engine.tags import NONE, Finder, Tags, known_words, parted, split
from diffgen.engine.words import WordReport, read_words
from diffgen.kernels.ops import check_backend
from diffgen.models.fast.evaluator import Evaluator
from diffgen.models.vae import AnyAutoencoder
from diffgen.settings.model import DEFAULT_MODEL, Source
from diffgen.text.conditioner import Conditioner
from diffgen.text.embeddings import Embeddings
from diffgen.types import (
    Denoiser,
    DeviceName,
    DtypeName,
    EmbeddingRef,
    LoraRef,
    Size,
    StepCallback,
    ignore,
)

logger = logging.getLogger("diffgen")


class Engine:
    """One model in memory. No method computes gradients."""

    def __init__(
        self,
        model: Model,
        device: torch.device,
        precision: Precision,
        loras: Sequence[LoraRef] = (),
        embeddings: Sequence[EmbeddingRef] = (),
    ) -> None:
        """Load the weights of an opened model; `Engine.load` also finds and opens it."""
        start = time.perf_counter()
        check_backend(device)
        self.model, self.config = model, model.checkpoint.config
        self.device, self.loras = device, tuple(loras)
        self._origin, self.embeddings = Origin(model, loras, embeddings), tuple(embeddings)
        self._tags = NONE  # what a prompt asked for
        self._finder = Finder()
        self.schedule = NoiseSchedule.from_config(self.config.schedule)
        networks = load_networks(model.checkpoint, device, precision)
        self.conditioner = Conditioner(self.config, networks.tokenizers, networks.encoders)
        self._learn(read_words(model, loras, embeddings))
        self.unet = networks.unet
        self.coder = Coder(
            model.checkpoint, networks.vae, device, precision.vae, decoder=model.decoder
        )
        self._precision = precision
        self.adapters = Adapters(model.checkpoint, self._weights_changed)
        self.adapters.merge(networks.adaptable, [*model.loras, *loras])
        self.evaluator = Evaluator(self.unet, device)
        self._refiner: Engine | None = None
        self._begun: tuple[Edit | None, Size, Beginning] | None = None
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
        embeddings: Sequence[EmbeddingRef] = (),
    ) -> Self:
        """Find, open and load a model by name or path, and merge LoRA files into its weights.

        A `Source` also says what overrides the model's own parts and facts; `embeddings` are words
        for prompts beside the model's own. Raises UsageError for an unknown name, WeightsError or
        ConfigError for a damaged model or a LoRA that does not fit it, DeviceError for an absent
        device.
        """
        model = source if isinstance(source, Model) else Model.of(source).sampled_with(loras)
        chosen = pick_device(device)
        if dtype == "fp16" and chosen.type == "cpu":
            logger.warning("fp16 on a CPU takes many times as long as --dtype auto")
        overflows = model.checkpoint.config.vae_overflows
        precision = Precision.pick(dtype, chosen, vae_overflows=overflows)
        return cls(model, chosen, precision, loras, embeddings)

    def use_loras(self, loras: Sequence[LoraRef]) -> None:
        """Replace the user's LoRAs; LoRAs of the model itself stay.

        The weights equal those of `Engine.load` with these LoRAs, bit for bit. The model is not
        read again: base weights of the changed layers are read the first time a layer changes after
        loading, and then stay in memory. Raises what loading a LoRA raises, and then changes
        nothing.
        """
        self._use(loras, self.embeddings)

    def use_embeddings(self, embeddings: Sequence[EmbeddingRef]) -> None:
        """Replace the user's embeddings. Raises WeightsError, and then changes nothing."""
        self._use(self.loras, embeddings)

    def _ask_for(self, tags: Tags) -> None:
        """Add what a prompt asks for to the user's LoRAs and embeddings."""
        if tags != self._tags:
            self._use(self.loras, self.embeddings, tags)

    def _use(
        self,
        loras: Sequence[LoraRef],
        embeddings: Sequence[EmbeddingRef],
        tags: Tags = NONE,
    ) -> None:
        everything = [*loras, *tags.loras]
        origin = Origin(self.model, everything, [*embeddings, *tags.embeddings])  # before reading
        words = read_words(self.model, everything, embeddings, tags.embeddings)
        self.adapters.use([*self.model.loras, *everything])
        self.loras, self.embeddings, self._origin = tuple(loras), tuple(embeddings), origin
        self._tags = tags
        self._learn(words)

    def _learn(self, words: Embeddings) -> None:
        self.conditioner.embeddings = words
        self.conditioner.forget()
        taught = bool(self.loras or self._tags or self.embeddings)
        self._words = WordReport.of(self.model, self.conditioner, taught=taught)

    def _known_words(self) -> set[str]:
        return known_words(self.model, self.loras, self.embeddings)

    @property
    def origin(self) -> dict[str, Any]:
        """The files in use, as plain values; those asked for in prompts are listed apart."""
        return parted(self._origin.record, self._tags)

    @property
    def precision(self) -> Precision:
        """The number formats in use."""
        return replace(self._precision, vae=self.coder.dtype)

    @property
    def vae(self) -> AnyAutoencoder:
        """The autoencoder in use."""
        return self.coder.vae

    def refiner(self, model: Model) -> Engine:
        """The model that ends a run, loaded once, on the same device and in the same format."""
        known = self._refiner
        if known is None or known.model.checkpoint.source != model.checkpoint.source:
            same: Any = {"device": self.device.type, "dtype": self.precision.name}
            known = self._refiner = Engine.load(model, **same)
        if self.embeddings or self.loras or self._tags:  # LoRAs may bring some along
            loras = [*self.loras, *self._tags.loras]
            known._learn(read_words(model, loras, self.embeddings, self._tags.embeddings))
        return known

    def plan(self, request: GenerateRequest) -> GeneratePlan:
        """The request with this model's defaults. Raises UsageError if it does not fit."""
        return self.model.plan(request)

    def generate(
        self, request: GenerateRequest | GeneratePlan, *, on_step: StepCallback = ignore
    ) -> Iterator[GeneratedImage]:
        """Yield the pictures of a request in order, each as soon as its batch is done.

        Logs warnings for prompts longer than the text encoder takes and for a decoder that had to
        be run again. Raises UsageError before the first picture if the request does not fit the
        model, DiffgenError for an overflow and DeviceError where memory runs out.
        """
        plan = self.plan(request) if isinstance(request, GenerateRequest) else request
        self._finder.tell(plan, self._finder.tags(plan, self._known_words))
        self._words.report(plan)
        logger.info("%s", plan.summary())
        try:
            for batch in plan.batches():
                yield from self.draw(plan, batch, on_step=on_step)
        finally:
            self._ask_for(NONE)

    def draw(
        self, plan: GeneratePlan, batch: Sequence[Picture], *, on_step: StepCallback = ignore
    ) -> list[GeneratedImage]:
        """Draw some pictures of a plan in the same network calls; they share one init picture.

        Prompts and seeds may differ from the plan's. So may, for pictures with plans of their own
        in the same group, whatever can differ in a call. LoRAs that prompts ask for are exchanged
        when they change, and stay until then. Raises as `generate`, and OutOfMemory where memory
        runs out.
        """
        tagged = self._finder.tags(plan.about(batch), self._known_words)
        self.evaluator.wrap(plan.request.seamless)
        self.coder.wrap(plan.request.seamless)
        self.coder.strips = plan.request.tile_vae
        made: list[GeneratedImage] = []
        for alike in split([batch], tagged):
            self._ask_for(tagged[alike[0].prompt])
            own = (picture.own.request for picture in alike if picture.own)
            cut = self._words.report(plan.about(alike), own)
            drawing = Drawing(self, plan.of(alike), alike)
            with memory_errors():
                for model, run in drawing.passes():
                    drawing.latents = model.sample(*run, on_step=on_step)
                made += drawing.finish(cut)
        return made

    @torch.inference_mode()
    def begin(self, plan: GeneratePlan, edit: Edit | None = None) -> Beginning:
        """The beginning of a plan's run, cached for the next batch with the same picture."""
        size = (plan.width, plan.height)
        known = self._begun
        if known is None or known[0] is not edit or known[1] != size:
            for note in edit.notes if edit else ():
                logger.warning("%s", note)
            beginning = begin(edit, self.config, size, self.coder)
            known = self._begun = (edit, size, beginning)
        return known[2]

    @torch.inference_mode()
    def guides(self, plan: GeneratePlan, prompts: Sequence[str]) -> list[Guide]:
        """Guides for the U-Net over the run of a plan, one a picture, text in its dtype."""
        return guides_of(plan, prompts, self.conditioner, self.device, self.precision.unet)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w) float32, by the mean of z."""
        return self.vae.to_latents(self.coder.encode(pixels))

    @torch.inference_mode()
    def sample(
        self,
        plan: GeneratePlan,
        seeds: Sequence[int],
        guides: Sequence[Guide],
        beginning: Beginning | None = None,
        *,
        on_step: StepCallback = ignore,
    ) -> Tensor:
        """Latents (B, C, h, w) float32, one image per seed and guide.

        `beginning` defaults to noise alone. Raises DiffgenError for latents that are not finite.
        """
        beginning = beginning or self.begin(plan)
        sampling, turned = plan.sampling, plan.request.turned
        shape = self.config.latent_shape(plan.width, plan.height)
        noise, source = sampling.noise(seeds, shape, self.device, variation=turned)
        denoise = self.adapters.follow(self.denoiser(plan, guides, beginning), sampling.sigmas)
        masked = beginning.masked(denoise, noise)
        x, report = beginning.state(sampling, noise), paced(on_step, self.device)
        for step in sampling.steps(masked or denoise, x, source):
            x = step.x
            report(step)
        latents = sampling.latents(x)
        if masked:
            latents = masked.blended(latents)
        if not bool(torch.isfinite(latents).all()):
            raise not_finite("sampling", self.precision.unet, self.model.checkpoint, self.adapters)
        return latents

    def denoiser(
        self, plan: GeneratePlan, guides: Sequence[Guide], beginning: Beginning | None = None
    ) -> Denoiser:
        """The guided model, as samplers evaluate it."""
        beginning = beginning or self.begin(plan)
        dtype = self.precision.unet
        guides = [guide.map(lambda cond: beginning.with_channels(cond, dtype)) for guide in guides]
        every = FAST_EVERY if plan.request.fast else 1
        network = self.evaluator.network(every=every, first=FAST_FIRST)
        schedule = self.config.schedule
        model = ModelDenoiser(network, self.schedule, schedule.prediction, dtype, schedule.clip)
        return steered(model, plan, guides, self.config)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) to pictures.

        A decoder that overflows in half precision is switched to float32 for good. Raises
        DiffgenError if that does not help.
        """
        return self.coder.decode(latents)

    def _weights_changed(self) -> None:
        """Drop everything cached from the networks before an exchange of LoRAs."""
        self.conditioner.forget()
        self.evaluator.weights_changed()
