"""`diffgen generate`: prompts to pictures."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diffgen.cli import options as opt
from diffgen.cli.console import (
    logged_notes,
    print_line,
    print_result,
    progress_bar,
    reported_pipe,
)
from diffgen.cli.memory import keep_from_first_step, loading_to_stay, return_freed_memory
from diffgen.cli.threads import settle_threads
from diffgen.errors import UsageError

if TYPE_CHECKING:
    from diffgen.engine.model import Model
    from diffgen.engine.output import PictureOutput
    from diffgen.engine.request import GeneratePlan
    from diffgen.weights.lora import LoraRef


def generate(
    prompts: opt.Prompts = None,
    prompt_file: opt.PromptFile = None,
    model: opt.Model = None,
    vae: opt.Vae = None,
    prediction: opt.PredictionType = None,
    lora: opt.Loras = None,
    negative: opt.Negative = None,
    steps: opt.Steps = None,
    guidance: opt.Guidance = None,
    guidance_rescale: opt.GuidanceRescale = 0.0,
    guidance_interval: opt.GuidanceInterval = None,
    sampler: opt.Sampler = None,
    schedule: opt.Schedule = None,
    sigmas: opt.Sigmas = None,
    timesteps: opt.Timesteps = None,
    rho: opt.Rho = None,
    eta: opt.Eta = None,
    s_churn: opt.Churn = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Sooner, not exact: on storybook 1.8 times as fast, 27 dB away."
        ),
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the first picture [default: random].")
    ] = None,
    width: Annotated[
        int | None, typer.Option("-W", "--width", help="In pixels [default: the model's].")
    ] = None,
    height: Annotated[
        int | None, typer.Option("-H", "--height", help="In pixels [default: the model's].")
    ] = None,
    count: Annotated[
        int, typer.Option("-c", "--count", help="Pictures per prompt: seeds S, S+1, ...")
    ] = 1,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Pictures made together; never changes them.")
    ] = 1,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|DIR",
            help="A .png file, a folder, or - for stdout [default: this folder].",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace pictures that exist.")
    ] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Where to run.")
    ] = "auto",
    dtype: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"],
        typer.Option("--dtype", help="Number format of the networks; auto: half where it is fast."),
    ] = "auto",
    threads: opt.Threads = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per picture.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Say more, and show where errors arise.")
    ] = False,
) -> None:
    """Make pictures from prompts.

    The path of each picture is printed as soon as it is finished.
    """
    settle_threads(threads)
    # Not above: --help and the other commands do without.
    from diffgen.diffusion.names import parse_sampler, parse_schedule
    from diffgen.engine.model import DEFAULT_MODEL, Model
    from diffgen.engine.output import PictureOutput
    from diffgen.engine.request import GenerateRequest

    sampler_name, implied = parse_sampler(sampler) if sampler else (None, None)
    options = {"eta": eta, "s_churn": s_churn}
    request = GenerateRequest(
        prompts=opt.read_prompts(prompts, prompt_file),
        negative=negative,
        seed=secrets.randbelow(2**32) if seed is None else seed,
        count=count,
        batch_size=batch_size,
        width=width,
        height=height,
        sampler=sampler_name,
        steps=steps,
        schedule=parse_schedule(schedule) if schedule else implied,
        sigmas=opt.parse_numbers("--sigmas", sigmas),
        timesteps=opt.parse_numbers("--timesteps", timesteps),
        rho=rho,
        options={name: value for name, value in options.items() if value is not None},
        guidance_scale=guidance,
        guidance_rescale=guidance_rescale,
        guidance_interval=opt.parse_interval("--guidance-interval", guidance_interval),
        fast=fast,
    )
    loras = [opt.parse_lora(text) for text in lora or []]
    other_vae = Path(vae).expanduser() if vae else None
    opened = Model.open(model or DEFAULT_MODEL, vae=other_vae, prediction=prediction)
    plan = opened.plan(request)
    if output == "-" and as_json:
        raise UsageError("--json and -o - both want stdout; choose one")
    sink = PictureOutput(output, pictures=plan.count, overwrite=overwrite)
    with logged_notes(verbose):
        _run(opened, loras, plan, sink, device, dtype, as_json=as_json, quiet=quiet)


def _run(
    model: Model,
    loras: Sequence[LoraRef],
    plan: GeneratePlan,
    sink: PictureOutput,
    device: Literal["auto", "cpu", "cuda", "mps"],
    dtype: Literal["auto", "fp32", "fp16", "bf16"],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    batches = -(-plan.count // plan.batch_size)
    with progress_bar(batches, quiet=quiet) as reporter:
        return_freed_memory()
        with loading_to_stay():
            from diffgen.engine.engine import Engine

            engine = Engine.load(model, device=device, dtype=dtype, loras=loras)
        reporter.start(_count(plan.count, "picture"))
        for picture in engine.generate(plan, on_step=keep_from_first_step(reporter.on_step)):
            with reported_pipe():
                path = sink.save(picture.image, picture.record)
            if not quiet:
                print_line(_summary(picture.record))
            if path:
                print_result(_result(path, picture.record, as_json=as_json))


def _summary(record: dict[str, Any]) -> str:
    seconds = sum(record["timings"].values())
    return (
        f"{json.dumps(record['prompt'], ensure_ascii=False)} seed {record['seed']}, "
        f"{_count(record['steps'], 'step')} of {record['sampler']}, {seconds:.2f} s"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _result(path: Path, record: dict[str, Any], *, as_json: bool) -> str:
    if not as_json:
        return str(path)
    return json.dumps({"path": str(path), **record}, ensure_ascii=False)
