"""Fewer evaluations for the same picture: our best sampler beside diffusers' DPM++ 2M.

For each goal GUIDANCE:OURS:THEIRS, diffusers' own pipeline draws pictures with DPM++ 2M in THEIRS
steps, from the same model and the same start noise as ours in OURS network evaluations. All are
compared with the converged picture of their seed. Our sampler and schedule are chosen on other
seeds than they are judged on.

    python scripts/bench_samplers.py                  # Markdown on stdout
    python scripts/bench_samplers.py --json out.json  # and every picture's figures as JSON
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from benchmark import publish
from PIL import Image
from torch import Tensor

from diffgen.bench import reference
from diffgen.bench.grid import PlannedCell, parse_integers
from diffgen.bench.metrics import latent_rmse, psnr, ssim
from diffgen.bench.request import SweepRequest
from diffgen.bench.session import Session
from diffgen.bench.subject import engine_subject
from diffgen.bench.uncertainty import statistic
from diffgen.diffusion.noise import StreamNoise
from diffgen.engine.engine import Engine

PROMPTS = (
    "red barn at sunset",
    "a blue car on a road at night",
    "a cat on the beach on a sunny day",
    "a castle in a green field",
)
SAMPLERS = "dpmpp_2m,unipc,deis,lms"
SCHEDULES = "default,karras,ays,beta,sgm_uniform"
HEADINGS = ("guidance", "sampler", "NFE", "PSNR, dB", "SSIM", "latent RMSE")
BATCH = 8


@dataclass(frozen=True)
class Goal:
    """Ours in `ours` evaluations is to be as close as theirs in `theirs` steps."""

    guidance: float
    ours: int
    theirs: int

    @classmethod
    def parse(cls, text: str) -> Goal:
        guidance, ours, theirs = text.split(":")
        return cls(float(guidance), int(ours), int(theirs))


@dataclass(frozen=True)
class Row:
    """How close the pictures of one sampler are; one number per picture."""

    guidance: float
    sampler: str
    nfe: int
    psnr: list[float]
    ssim: list[float]
    rmse: list[float]

    def cells(self) -> list[str]:
        """The row of the table."""
        close = statistic(self.psnr)
        return [
            f"{self.guidance:g}",
            self.sampler,
            str(self.nfe),
            f"{close.mean:.2f} +- {close.ci95:.2f}",
            f"{fmean(self.ssim):.4f}",
            f"{fmean(self.rmse):.4f}",
        ]


GOALS = [Goal(1.0, 10, 20), Goal(7.0, 14, 20)]


class Judge:
    """The pictures of some prompts and seeds, and how close others come to them."""

    def __init__(self, engine: Engine, session: Session, steps: int) -> None:
        request, self._guidance = session.request, session.task.plan.guidance_scale
        self.subject = engine_subject(engine, session.task.plan, request.pictures())
        _, self._truth = reference.converge(
            self.subject, reference.ODE, steps, lambda denoise: denoise
        )
        self._images = self._decode(self._truth)

    def row(self, name: str, nfe: int, sample: Callable[[Sequence[int]], Tensor]) -> Row:
        """Figures of `sample`, which draws the pictures with these indices."""
        indices = range(len(self.subject.pictures))
        batches = [indices[i : i + BATCH] for i in indices[::BATCH]]
        with torch.inference_mode():
            latents = torch.cat([sample(batch).float() for batch in batches])
        pairs = list(zip(self._decode(latents), self._images, strict=True))
        return Row(
            guidance=self._guidance,
            sampler=name,
            nfe=nfe,
            psnr=[psnr(a, b) for a, b in pairs],
            ssim=[ssim(a, b) for a, b in pairs],
            rmse=[latent_rmse(a, b) for a, b in zip(latents, self._truth, strict=True)],
        )

    def ours(self, cell: PlannedCell) -> Row:
        """One of our samplers."""
        subject = self.subject

        def sample(batch: Sequence[int]) -> Tensor:
            denoise = subject.denoiser(batch)
            return cell.plan.run(denoise, subject.seeds(batch), subject.shape, subject.device)

        name = f"diffgen {cell.plan.spec.name} + {cell.plan.schedule}"
        return self.row(name, cell.plan.nfe or 0, sample)

    def theirs(self, pipeline: Any, steps: int, *, karras: bool) -> Row:
        """diffusers' DPM++ 2M, spaced as the checkpoint says or by Karras."""
        from diffusers import DPMSolverMultistepScheduler

        subject, guidance = self.subject, self._guidance
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
            pipeline.scheduler.config, use_karras_sigmas=karras
        )

        def sample(batch: Sequence[int]) -> Tensor:
            noise = StreamNoise(subject.seeds(batch), subject.shape, subject.device).draw()
            return pipeline(
                [subject.pictures[index].prompt for index in batch],
                latents=noise,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="latent",
            ).images

        spacing = "Karras" if karras else pipeline.scheduler.config.timestep_spacing
        return self.row(f"diffusers DPM++ 2M, {spacing}", steps, sample)

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        return reference.decode(self.subject, latents)


def measure(arguments: argparse.Namespace, goal: Goal) -> list[Row]:
    """The rows of one goal: theirs, then our choice."""

    def session(seeds: str) -> Session:
        request = SweepRequest(
            prompts=tuple(arguments.prompts),
            model=arguments.model,
            seeds=parse_integers("seeds", seeds, lowest=0),
            samplers=arguments.samplers,
            schedules=arguments.schedules,
            nfe=str(goal.ours),
            guidance_scale=goal.guidance,
            reference=arguments.reference,
        )
        return Session(request)

    choosing, judging = session(arguments.choose_seeds), session(arguments.seeds)
    engine = Engine.load(choosing.opened, dtype="fp32")
    candidates = Judge(engine, choosing, arguments.reference)
    best = max(choosing.task.cells, key=lambda cell: fmean(candidates.ours(cell).psnr))
    judge = Judge(engine, judging, arguments.reference)
    pipeline = load_pipeline(choosing.opened.checkpoint.source)
    theirs = [judge.theirs(pipeline, goal.theirs, karras=karras) for karras in (False, True)]
    return [*theirs, judge.ours(best)]


def load_pipeline(folder: Path) -> Any:
    """diffusers' pipeline of the same model, in float32 and quiet."""
    import diffusers
    import transformers

    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about steps_offset, which is not used
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", nargs="*", default=PROMPTS)
    parser.add_argument("-m", "--model", default="storybook")
    parser.add_argument("--goals", nargs="+", type=Goal.parse, default=GOALS)
    parser.add_argument("--seeds", default="0-3", help="judged on")
    parser.add_argument("--choose-seeds", default="100-101", help="chosen on")
    parser.add_argument("--samplers", default=SAMPLERS)
    parser.add_argument("--schedules", default=SCHEDULES)
    parser.add_argument("--reference", type=int, default=200)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure all goals and print the table."""
    arguments = parse_arguments()
    rows = [row for goal in arguments.goals for row in measure(arguments, goal)]
    figures = [vars(row) for row in rows]
    publish(
        "Few steps beside diffusers' many", markdown(rows), figures, arguments.json, device="cpu"
    )


if __name__ == "__main__":
    main()
