"""The converged solution each picture is compared with.

The equation is the probability-flow ODE. It starts at the model's highest noise level in the state
`sqrt(1 + sigma_max^2) * noise` of the seed (the end of the forward process, up to a vanishing
mean), runs to the lowest trained noise level, and ends at 0 by one denoising step, as most samplers
do. Some samplers and spacings start elsewhere (k-diffusion's at `sigma * noise`, `leading` and
`ays` below sigma_max) or end otherwise (LMS extrapolates to 0, DEIS stops at the lowest level).
More steps do not change that, so it counts as part of their error.

It is solved in the number format of the cells, since the question is how close a sampler comes to
the solution for this network as `generate` computes it. Two solvers round differently, so rounding
is part of the floor; the answer says so where it keeps the floor below the target. A sweep over
number formats compares all of them with the solution in fp32.

A stochastic sampler solves an SDE. Along one fixed Brownian path per seed it converges to a limit
of its own, which is its reference: one for each eta above 0, where eta 0 is the ODE.

Guidance and weights are part of the equation: each scale, rescale, method and interval, each model
and each LoRA has its own reference.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffgen.bench.folder import CELLS
from diffgen.bench.grid import PlannedCell
from diffgen.bench.limits import limit_key, limit_title, solution_of
from diffgen.bench.metrics import latent_rmse, psnr, ssim
from diffgen.bench.results import Reference
from diffgen.bench.subject import Subject
from diffgen.device import memory_errors
from diffgen.diffusion.noise import BrownianNoise
from diffgen.diffusion.prediction import state_scale
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.errors import DeviceError, DiffgenError
from diffgen.files import replaced
from diffgen.settings.axes import Point
from diffgen.settings.sampling import Sampling
from diffgen.types import Denoiser, SamplerName, SpacingName

SCHEDULE: SpacingName = "exponential"  # uniform in log sigma, over all scales
MAX_STEPS = 800
SETTLED, GAIN = 100, 0.5  # steps, dB
BATCH = 4  # batch size: a picture never depends on its neighbours


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of cells: the ODE (`sampler` None) or one sampler's SDE, at a solution.

    `key` is that of the record in `Results.references`, `title` its name for readers.
    """

    sampler: SamplerName | None = None
    eta: float | None = None
    solution: Point = ()
    key: str = ""
    title: str = ""

    @classmethod
    def of(cls, cell: PlannedCell) -> Self:
        """The limit of a cell that has one."""
        name, stochastic = cell.plan.spec.name, cell.stochastic
        return cls(
            name if stochastic else None,
            cell.plan.options.get("eta") if stochastic else None,
            solution_of(cell.point),
            limit_key(name, cell.point, stochastic=stochastic),
            limit_title(name, cell.point, stochastic=stochastic),
        )


ODE = Limit()


@dataclass(frozen=True, slots=True)
class Converged:
    """A reference with its picture of every seed and prompt."""

    record: Reference
    latents: Tensor  # (pictures, C, h, w) float32 on the CPU
    images: list[Image.Image]


@dataclass(frozen=True, slots=True)
class Solver:
    """One way to compute the limit: a sampler with its settings and spacing."""

    sampler: SamplerName
    label: str
    schedule: SpacingName = SCHEDULE
    eta: float | None = None
    share: float = 1.0  # of the reference's steps

    def plan(self, subject: Subject, steps: int) -> SamplingPlan:
        """`steps` noise levels from the model's highest to its lowest, started as above."""
        settings = Sampling(
            sampler=self.sampler,
            schedule=self.schedule,
            steps=max(2, round(steps * self.share)),
            eta=self.eta,
        )
        plan = SamplingPlan.make(settings, subject.config, subject.schedule)
        return replace(plan, start=state_scale(plan.sigmas[0], plan.space))


# DPM-Solver++ of third order (arXiv:2211.01095) is the SDE solver without its noise. It is checked
# by a predictor-corrector method on other noise levels, so that neither can hide its error.
SOLVER = Solver("dpmpp_3m_sde", "dpmpp_3m", eta=0.0)
CHECK = Solver("unipc", "unipc", schedule="karras")


def solvers(limit: Limit) -> tuple[Solver, Solver]:
    """The solver and its check."""
    if limit.sampler is None:
        return SOLVER, CHECK
    solver = Solver(limit.sampler, limit.sampler, eta=limit.eta)
    return solver, replace(solver, share=0.5)


def converge(
    subject: Subject,
    limit: Limit,
    steps: int,
    count: Callable[[Denoiser], Denoiser],
) -> tuple[Reference, Tensor]:
    """Solve for all pictures, twice; latents (pictures, C, h, w) on the CPU.

    `count` wraps each denoiser, for progress. Raises DiffgenError for a solution that is not
    finite.
    """
    solver, check = solvers(limit)
    plan = solver.plan(subject, steps)
    latents = _solve(subject, plan, count)
    second = check.plan(subject, steps)
    other = _solve(subject, second, count)
    pairs = list(zip(decode(subject, latents), decode(subject, other), strict=True))
    total = len(pairs)
    record = Reference(
        sampler=solver.label,
        schedule=SCHEDULE,
        steps=plan.steps_run,
        nfe=plan.nfe or 0,
        checked_with=f"{check.label} + {check.schedule}, {second.steps_run} steps",
        floor_latent_rmse=math.sqrt(
            sum(latent_rmse(a, b) ** 2 for a, b in zip(latents, other, strict=True)) / total
        ),
        floor_psnr=sum(psnr(a, b) for a, b in pairs) / total,
        floor_ssim=sum(ssim(a, b) for a, b in pairs) / total,
        picture=f"{CELLS}/{file_name(limit.key)}.png",
        title=limit.title,
    )
    return record, latents


def converge_until(
    subject: Subject,
    limit: Limit,
    steps: int,
    floor: float,
    count: Callable[[Denoiser], Denoiser],
) -> tuple[Reference, Tensor]:
    """Solve with doubled steps until the two solutions agree to `floor` dB.

    It ends at `MAX_STEPS`, and if doubling `SETTLED` steps or more gained less than `GAIN`: then
    only rounding is left.
    """
    record, latents = converge(subject, limit, steps, count)
    while record.floor_psnr < floor and 2 * record.steps <= MAX_STEPS:
        _log.warning(
            "the reference%s has not converged in %d steps (its two solutions agree to %.1f dB); "
            "taking %d",
            f" of {limit.title}" if limit.title else "",
            record.steps,
            record.floor_psnr,
            2 * record.steps,
        )
        before = record
        record, latents = converge(subject, limit, 2 * before.steps, count)
        if before.steps >= SETTLED and record.floor_psnr < before.floor_psnr + GAIN:
            break
    return record, latents


def calls(subject: Subject, limit: Limit, steps: int) -> int:
    """Network evaluations of `converge`."""
    batches = -(-len(subject.pictures) // BATCH)
    plans = [solver.plan(subject, steps) for solver in solvers(limit)]
    return batches * sum(plan.nfe or 0 for plan in plans)


def file_name(key: str) -> str:
    """The stem of a reference's files, from its key."""
    return f"reference-{key}" if key else "reference"


def save_latents(latents: Tensor, path: Path) -> None:
    """Write the latents of a reference atomically. Raises OSError."""
    with replaced(path) as part:
        part.write_bytes(save({"latents": latents.contiguous()}))


def load_latents(path: Path, subject: Subject) -> Tensor | None:
    """Stored latents, or None if they do not fit this subject."""
    try:
        latents = load_file(path)["latents"]
    except (OSError, SafetensorError, KeyError):
        return None
    return latents if latents.shape == (len(subject.pictures), *subject.shape) else None


def attach(subject: Subject, record: Reference, latents: Tensor) -> Converged:
    """A reference prepared for comparisons."""
    return Converged(record, latents, decode(subject, latents))


def decode(subject: Subject, latents: Tensor) -> list[Image.Image]:
    """Decode latents one by one, as each cell's are."""
    with torch.inference_mode():
        return [subject.decode(row[None].to(subject.device))[0] for row in latents]


def _solve(subject: Subject, plan: SamplingPlan, count: Callable[[Denoiser], Denoiser]) -> Tensor:
    """All pictures in batches; one by one if memory does not allow more."""
    indices = range(len(subject.pictures))
    try:
        return _solve_batches(
            subject, plan, count, [indices[i : i + BATCH] for i in indices[::BATCH]]
        )
    except DeviceError:
        return _solve_batches(subject, plan, count, [[i] for i in indices])


def _solve_batches(
    subject: Subject,
    plan: SamplingPlan,
    count: Callable[[Denoiser], Denoiser],
    batches: Sequence[Sequence[int]],
) -> Tensor:
    done = []
    for batch in batches:
        seeds = subject.seeds(batch)
        path = BrownianNoise(seeds, subject.shape, subject.device)
        with torch.inference_mode(), memory_errors():
            denoise = count(subject.denoiser(batch))
            done.append(plan.run(denoise, seeds, subject.shape, subject.device, noise=path).cpu())
    latents = torch.cat(done)
    if not bool(torch.isfinite(latents).all()):
        raise DiffgenError(f"the reference of {plan.spec.name} gave numbers that are not finite")
    return latents
