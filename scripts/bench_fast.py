"""What `--fast` could reuse and leave out: time and distance to the exact picture, by table.

python scripts/bench_fast.py                       # storybook, its own sampler and steps
python scripts/bench_fast.py --model ~/sd15 --steps 25 --every 2,3
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace

import torch
from benchmark import arguments, machine
from PIL.Image import Image

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import GuidedDenoiser
from diffgen.engine.model import DEFAULT_MODEL
from diffgen.engine.request import GeneratePlan
from diffgen.models.deep_cache import DeepCache

PROMPTS = ("red barn at sunset", "a blue car on a road at night", "a cat on the beach", "two owls")
REFERENCE_STEPS = 50


def sample(engine: Engine, plan: GeneratePlan, every: int, low: float, seed: int) -> Image:
    """The picture of a plan with other economies; every 1 reuses nothing."""
    with torch.inference_mode():
        size = {"width": plan.width, "height": plan.height}
        cond, uncond = engine.encode_prompts(plan.prompts, plan.negative, **size)
        network = DeepCache(*engine.steps, every=every)
        schedule = engine.config.schedule
        model = ModelDenoiser(
            network, engine.schedule, schedule.prediction, engine.precision.unet, schedule.clip
        )
        denoise = GuidedDenoiser(model, cond, uncond, plan.guidance_scale, interval=(low, math.inf))
        factor = engine.config.factor
        shape = (engine.config.unet.in_channels, plan.height // factor, plan.width // factor)
        latents = plan.sampling.run(denoise, [seed], shape, engine.device)
        (image,) = engine.decode(latents)
        return image


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        model={"default": DEFAULT_MODEL, "help": "a name or folder in diffusers layout"},
        steps={"type": int, "help": "steps [default: the model's]"},
        every={"default": "1,2,3", "help": "reuse lower levels in all but every n-th evaluation"},
        low={"default": "0,0.3,0.5,1,2", "help": "noise levels at which guidance ends"},
    )
    engine = Engine.load(options.model, device=options.device)
    plans = [
        engine.plan(GenerateRequest(prompts=[prompt], steps=options.steps)) for prompt in PROMPTS
    ]
    seeds = range(options.runs)
    converged = [
        sample(engine, _converged(engine, plan), 1, 0.0, seed) for plan in plans for seed in seeds
    ]
    print(f"{options.model}: {', '.join(f'{k} {v}' for k, v in machine(options.device).items())}")
    print("\n| every | guidance ends | s | times as fast | PSNR to exact | to converged |")
    print("|---|---|---|---|---|---|")
    exact: list[Image] = []
    first = 0.0
    for every in map(int, options.every.split(",")):
        for low in map(float, options.low.split(",")):
            made, seconds = [], []
            for plan in plans:
                for seed in seeds:
                    start = time.perf_counter()
                    made.append(sample(engine, plan, every, low, seed))
                    seconds.append(time.perf_counter() - start)
            exact = exact or made
            median = statistics.median(seconds)
            first = first or median
            near = [statistics.mean(map(psnr, made, other)) for other in (exact, converged)]
            print(
                f"| {every} | {low:g} | {median:.3f} | {first / median:.2f} "
                f"| {near[0]:.1f} | {near[1]:.1f} |",
                flush=True,
            )


def _converged(engine: Engine, plan: GeneratePlan) -> GeneratePlan:
    """The same pictures in many steps."""
    request = GenerateRequest(prompts=plan.prompts, steps=REFERENCE_STEPS)
    return replace(plan, sampling=engine.plan(request).sampling)


if __name__ == "__main__":
    main()
