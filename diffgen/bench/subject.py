"""What a sweep measures: a denoiser for each picture and a way to see its latents."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from diffgen import __version__
from diffgen.bench.results import Machine
from diffgen.device import Precision, pick_device, synchronize
from diffgen.diffusion.course import Guide
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.settings.axes import Point
from diffgen.types import Denoiser, DeviceName, DtypeName, NoiseConfig

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
        """What is measured there."""

    def reference(self, solution: Point) -> Subject:
        """What the cells of a solution are held against: the same equation, computed exactly."""


class EngineSubjects:
    """A loaded model at each point; every prompt is encoded once for all of them."""

    def __init__(
        self, engine: Engine, plans: Mapping[Point, GeneratePlan], pictures: Sequence[Picture]
    ) -> None:
        """`plans` are those of `generate` at the points, and at their solutions."""
        guides, self.text_seconds = encode(engine, next(iter(plans.values())), pictures)
        self._cells = {
            point: subject_of(engine, plan, pictures, guides) for point, plan in plans.items()
        }
        self._references = {
            point: subject_of(engine, _exact(plan), pictures, guides)
            for point, plan in plans.items()
        }

    def cell(self, point: Point) -> Subject:
        return self._cells[point]

    def reference(self, solution: Point) -> Subject:
        return self._references[solution]


def _exact(plan: GeneratePlan) -> GeneratePlan:
    return replace(plan, request=replace(plan.request, fast=False))


def engine_subject(
    engine: Engine, plan: GeneratePlan, pictures: Sequence[Picture]
) -> tuple[Subject, float]:
    """A loaded model as the subject of a sweep, and the median seconds to encode a prompt."""
    guides, seconds = encode(engine, plan, pictures)
    return subject_of(engine, plan, pictures, guides), seconds


def encode(
    engine: Engine, plan: GeneratePlan, pictures: Sequence[Picture]
) -> tuple[Mapping[str, Guide], float]:
    """What the network is told of each prompt, and the median seconds to encode one.

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
    engine: Engine, plan: GeneratePlan, pictures: Sequence[Picture], guides: Mapping[str, Guide]
) -> Subject:
    """A loaded model under the guidance of a plan; `guides` are those of the prompts."""

    def denoiser(indices: Sequence[int]) -> Denoiser:
        return engine.denoiser(plan, [guides[pictures[i].prompt] for i in indices])

    return Subject(
        pictures=tuple(pictures),
        config=engine.config.schedule,
        schedule=engine.schedule,
        shape=engine.config.latent_shape(plan.width, plan.height),
        device=engine.device,
        denoiser=denoiser,
        decode=engine.decode,
    )


def describe_machine(model: Model, device: DeviceName, dtype: DtypeName) -> Machine:
    """Where a model would run and in what format, which are those of `generate`.

    Raises DeviceError.
    """
    place = pick_device(device)
    vae = model.checkpoint.config.vae
    precision = Precision.pick(dtype, place, vae_overflows=vae is not None and vae.force_upcast)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else _processor()
    return Machine(
        device=f"{place.type} ({name})",
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
    """The processor's name as people know it; Python alone tells only its family on Linux."""
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
