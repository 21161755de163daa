"""From prompt to picture with a loaded model, ours and diffusers' pipeline, both warm.

python scripts/bench_generate.py                       # storybook
python scripts/bench_generate.py --model ~/sd15 --steps 20 --dtypes bf16
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from bench_step import DTYPES
from benchmark import Case, arguments, measure, report

from diffgen import Engine, GenerateRequest
from diffgen.engine.model import DEFAULT_MODEL, Model

PROMPT, SEED, GUIDANCE = "red barn at sunset", 7, 4.0


def ours(model: str, steps: int, size: int | None, dtype: Any, device: Any) -> Case:
    """Our engine, sampling by ddim."""
    engine = Engine.load(model, device=device, dtype=dtype)
    request = GenerateRequest(
        prompts=[PROMPT],
        seed=SEED,
        steps=steps,
        sampler="ddim",
        guidance_scale=GUIDANCE,
        width=size,
        height=size,
    )
    return lambda: list(engine.generate(request))


def theirs(model: str, steps: int, size: int | None, dtype: str, device: str) -> Case:
    """The pipeline on the same folder, sampling by ddim."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder = Model.open(model).checkpoint.source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=DTYPES[dtype])
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    settings = {"num_inference_steps": steps, "guidance_scale": GUIDANCE}
    settings |= {"width": size, "height": size} if size else {}

    def run() -> object:
        generator = torch.Generator("cpu").manual_seed(SEED)
        return pipeline(PROMPT, generator=generator, **settings).images

    return run


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        model={"default": DEFAULT_MODEL, "help": "a name or folder in diffusers layout"},
        steps={"type": int, "default": 20},
        size={"type": int, "help": "side of the picture in pixels [default: the model's]"},
        dtypes={"default": "fp32,bf16", "help": "of fp32, bf16, fp16"},
    )
    cases: dict[str, Case] = {}
    for name in options.dtypes.split(","):
        given = (options.model, options.steps, options.size, name, options.device)
        cases |= {f"diffusers {name}": theirs(*given), f"diffgen {name}": ours(*given)}
    title = f"A picture of {options.model} in {options.steps} steps of ddim"
    report(title, measure(cases, runs=options.runs), options)


if __name__ == "__main__":
    main()
