"""What `--fast` could reuse and leave out: time and distance to the exact picture, by table.

python scripts/bench_fast.py                       # storybook, its own sampler
python scripts/bench_fast.py --model ~/sd15 --steps 25,18,12 --every 1,2,3
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from benchmark import arguments, machine
from PIL.Image import Image

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import Guidance
from diffgen.diffusion.guided import GuidedDenoiser
from diffgen.engine.model import DEFAULT_MODEL
from diffgen.engine.plan import FAST_FIRST, GeneratePlan

PROMPTS = ("red barn at sunset", "a blue car on a road at night", "a cat on the beach", "two owls")


def sample(engine: Engine, plan: GeneratePlan, every: int, low: float, seed: int) -> Image:
    """The picture of a plan with other economies; every 1 reuses nothing."""
    with torch.inference_mode():
        guides = engine.guides(plan, plan.request.prompts)
        network = engine.evaluator.network(every=every, first=FAST_FIRST)
        schedule = engine.config.schedule
        model = ModelDenoiser(
            network, engine.schedule, schedule.prediction, engine.precision.unet, schedule.clip
        )
        denoise = GuidedDenoiser(
            model, guides, Guidance.constant(plan.guidance_scale, interval=(low, math.inf))
        )
        shape = engine.config.latent_shape(plan.width, plan.height)
        latents = plan.sampling.run(denoise, [seed], shape, engine.device)
        (image,) = engine.decode(latents)
        return image


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        model={"default": DEFAULT_MODEL, "help": "a name or folder in diffusers layout"},
        steps={"default": "10,8,7,6,5", "help": "the first are the exact pictures"},
        every={"default": "1,2,3", "help": "whole evaluations among the later ones"},
        schedules={"default": "default,ays", "help": "by name; default is the model's own"},
        low={"default": "0", "help": "noise levels at which guidance ends"},
        converged={"type": int, "default": 50, "help": "steps of the pictures to come near to"},
        prompts={"type": int, "default": len(PROMPTS), "help": "how many, at most as many"},
    )
    engine = Engine.load(options.model, device=options.device)
    seeds = range(options.runs)
    prompts = PROMPTS[: options.prompts]
    reference = pictures(engine, prompts, "default", options.converged, 1, 0.0, seeds)
    converged = [image for image, _ in reference]
    print(f"{options.model}: {', '.join(f'{k} {v}' for k, v in machine(options.device).items())}")
    print(
        "\n| schedule | steps | every | guidance ends | s | times as fast | PSNR to exact | to converged |"
    )
    print("|---|---|---|---|---|---|---|---|")
    exact: list[Image] = []
    first = 0.0
    for schedule, steps, every, low in product(
        options.schedules.split(","),
        map(int, options.steps.split(",")),
        map(int, options.every.split(",")),
        map(float, options.low.split(",")),
    ):
        drawn = pictures(engine, prompts, schedule, steps, every, low, seeds)
        made, seconds = zip(*drawn, strict=True)
        exact = exact or list(made)
        median = statistics.median(seconds)
        first = first or median
        near = [statistics.mean(map(psnr, made, other)) for other in (exact, converged)]
        print(
            f"| {schedule} | {steps} | {every} | {low:g} | {median:.3f} | {first / median:.2f} "
            f"| {near[0]:.1f} | {near[1]:.1f} |",
            flush=True,
        )


def pictures(
    engine: Engine,
    prompts: Sequence[str],
    schedule: Any,
    steps: int,
    every: int,
    low: float,
    seeds: Sequence[int],
) -> Iterator[tuple[Image, float]]:
    """Each prompt with each seed, and the seconds it took."""
    for prompt in prompts:
        spacing = None if schedule == "default" else schedule
        plan = engine.plan(GenerateRequest(prompts=[prompt], steps=steps, schedule=spacing))
        for seed in seeds:
            start = time.perf_counter()
            image = sample(engine, plan, every, low, seed)
            yield image, time.perf_counter() - start


if __name__ == "__main__":
    main()
