"""The subject of a sweep: a denoiser for each picture, and a decoder."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from diffgen import __version__
from diffgen.bench.results import Machine
from diffgen.device import Precision, memory_errors, pick_device, release_memory, synchronize
from diffgen.diffusion.course import Guide
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.settings.axes import Point
from diffgen.types import (
    Denoiser,
    DeviceName,
    DtypeName,
    EmbeddingRef,
    LoraRef,
    NoiseConfig,
    StepInfo,
)

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with its text already encoded, or anything else that can be sampled.

    `denoiser` makes the denoiser of a batch, the pictures with these indices; `shape` is (C, h, w)
    of one picture's latents, and `decode` makes pictures of (B, C, h, w).
    """

    pictures: tuple[Picture, ...]
    config: NoiseConfig
    schedule: NoiseSchedule
    shape: tuple[int, ...]
    device: torch.device
    denoiser: Callable[[Sequence[int]], Denoiser]
    decode: Callable[[Tensor], list[Image.Image]]

    def seeds(self, indices: Sequence[int]) -> list[int]:
        """The seeds of these pictures."""
        return [self.pictures[index].seed for index in indices]


class Subjects(Protocol):
    """A subject for each point of a sweep's further axes; all draw the same pictures."""

    def cell(self, point: Point) -> Subject:
        """The subject of cells at a point."""

    def reference(self, solution: Point) -> Subject:
        """The subject of a solution's reference: the same equation, computed exactly."""


@dataclass(frozen=True, slots=True)
class Build:
    """What is loaded to draw: a model with LoRAs and embeddings, in one number format."""

    model: Model
    device: DeviceName
    dtype: DtypeName
    loras: tuple[LoraRef, ...] = ()
    embeddings: tuple[EmbeddingRef, ...] = ()

    def load(self) -> Engine:
        """Raises what `Engine.load` raises."""
        return Engine.load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            loras=self.loras,
            embeddings=self.embeddings,
        )


class Loaded(NamedTuple):
    """A model in memory, and its guides by prompt."""

    engine: Engine
    guides: Mapping[str, Guide]


class EngineSubjects:
    """Models at each point, of which one at a time is in memory; it encodes every prompt once."""

    def __init__(
        self,
        cells: Mapping[Point, tuple[Build, GeneratePlan]],
        references: Mapping[Point, tuple[Build, GeneratePlan]],
        pictures: Sequence[Picture],
        on_text: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """The plans are those of `generate` at the points, and at the solutions.

        `on_text` gets the seconds that a prompt took to encode.
        """
        self._pictures, self._on_text = tuple(pictures), on_text
        self._build: Build | None = None
        self._loaded: Loaded | None = None
        self._cells = {point: self._subject(*made) for point, made in cells.items()}
        self._references = {
            solution: self._subject(build, _exact(plan))
            for solution, (build, plan) in references.items()
        }

    def cell(self, point: Point) -> Subject:
        return self._cells[point]

    def reference(self, solution: Point) -> Subject:
        return self._references[solution]

    def _subject(self, build: Build, plan: GeneratePlan) -> Subject:
        device = pick_device(build.device)
        return subject_of(
            build.model, plan, self._pictures, device, lambda: self._load(build, plan)
        )

    def _load(self, build: Build, plan: GeneratePlan) -> Loaded:
        if self._loaded is None or self._build != build:
            self._build = self._loaded = None  # before the next one takes memory
            release_memory()
            engine = build.load()
            guides, seconds = encode(engine, plan, self._pictures)
            self._on_text(seconds)
            self._build, self._loaded = build, Loaded(engine, guides)
        return self._loaded


def _exact(plan: GeneratePlan) -> GeneratePlan:
    return replace(plan, request=replace(plan.request, fast=False))


def engine_subject(engine: Engine, plan: GeneratePlan, pictures: Sequence[Picture]) -> Subject:
    """A loaded model as the subject of a sweep."""
    loaded = Loaded(engine, encode(engine, plan, pictures)[0])
    return subject_of(engine.model, plan, pictures, engine.device, lambda: loaded)


def encode(
    engine: Engine, plan: GeneratePlan, pictures: Sequence[Picture]
) -> tuple[Mapping[str, Guide], float]:
    """Guides of all prompts, and the median seconds to encode one.

    Each prompt is encoded once, alone, as `generate` does it.
    """
    prompts = list(dict.fromkeys(picture.prompt for picture in pictures))
    engine.guides(plan, prompts[:1])  # warm-up
    encoded: dict[str, Guide] = {}
    seconds = []
    for prompt in prompts:
        engine.conditioner.forget()
        start = time.perf_counter()
        (encoded[prompt],) = engine.guides(plan, [prompt])
        synchronize(engine.device)
        seconds.append(time.perf_counter() - start)
    return encoded, median(seconds)


def subject_of(
    model: Model,
    plan: GeneratePlan,
    pictures: Sequence[Picture],
    device: torch.device,
    load: Callable[[], Loaded],
) -> Subject:
    """A model under the guidance of a plan; `load` is called when it is to draw or to decode."""
    config = model.checkpoint.config

    def denoiser(indices: Sequence[int]) -> Denoiser:
        engine, guides = load()
        return engine.denoiser(plan, [guides[pictures[i].prompt] for i in indices])

    return Subject(
        pictures=tuple(pictures),
        config=config.schedule,
        schedule=NoiseSchedule.from_config(config.schedule),
        shape=config.latent_shape(plan.width, plan.height),
        device=device,
        denoiser=denoiser,
        decode=lambda latents: load().engine.decode(latents),
    )


def describe_machine(model: Model, device: DeviceName, dtype: DtypeName) -> Machine:
    """The device and number format of a run, as in `generate`.

    Raises DeviceError.
    """
    chosen = pick_device(device)
    overflows = model.checkpoint.config.vae_overflows
    precision = Precision.pick(dtype, chosen, vae_overflows=overflows)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else _processor()
    return Machine(
        device=f"{chosen.type} ({name})",
        dtype=precision.name,
        threads=torch.get_num_threads(),
        platform=platform.platform(),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffgen": __version__,
        },
    )


def _processor() -> str:
    """The processor's model name; on Linux, Python knows only its family."""
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def denoised_frames(subject: Subject, plan: SamplingPlan) -> tuple[list[Image.Image], list[float]]:
    """Sample the first picture; one frame a step, and the noise level the step began at."""
    frames: list[Image.Image] = []
    sigmas = [plan.sigmas[0]]

    def keep(info: StepInfo) -> None:
        frames.extend(subject.decode(info.denoised))
        sigmas.append(info.sigma)

    with torch.inference_mode(), memory_errors():
        seeds = subject.seeds([0])
        plan.run(subject.denoiser([0]), seeds, subject.shape, subject.device, on_step=keep)
    return frames, sigmas[:-1]
