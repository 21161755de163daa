"""`diffgen generate`: prompts to pictures."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diffgen.cli import options as opt
from diffgen.cli.console import logged_notes, print_json, print_result, reported_pipe
from diffgen.cli.memory import keep_from_first_step, loading_to_stay, return_freed_memory
from diffgen.cli.progress import Display, progress
from diffgen.cli.prompts import check_syntax, read_prompts
from diffgen.cli.signals import Stopped
from diffgen.cli.streams import stdout_is_closed
from diffgen.cli.threads import settle_threads
from diffgen.errors import UsageError, one_line
from diffgen.types import StepInfo

if TYPE_CHECKING:
    from diffgen.engine.engine import GeneratedImage
    from diffgen.engine.model import Model
    from diffgen.engine.output import PictureOutput
    from diffgen.engine.request import GeneratePlan
    from diffgen.weights.adapters.lora import LoraRef

PROMPT_SHOWN = 150  # characters
ANY_SEED = -1  # as A1111 has it


def generate(
    prompts: opt.Prompts = None,
    prompt_file: opt.PromptFile = None,
    strict: opt.Strict = False,
    model: opt.Model = None,
    vae: opt.Vae = None,
    prediction: opt.PredictionType = None,
    zero_snr: opt.ZeroSnr = None,
    clip_skip: opt.ClipSkip = None,
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
        int | None,
        typer.Option("--seed", help="Seed of the first picture [default: random, as -1]."),
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
    from diffgen.engine.output import OutputStyle, PictureOutput
    from diffgen.engine.request import GenerateRequest

    sampler_name, implied = parse_sampler(sampler) if sampler else (None, None)
    options = {"eta": eta, "s_churn": s_churn}
    request = GenerateRequest(
        prompts=read_prompts(prompts, prompt_file),
        negative=negative,
        seed=secrets.randbelow(2**32) if seed is None or seed == ANY_SEED else seed,
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
        clip_skip=clip_skip,
        fast=fast,
    )
    check_syntax([*request.prompts, negative or ""], strict=strict)
    loras = [opt.parse_lora(text) for text in lora or []]
    other_vae = Path(vae).expanduser() if vae else None
    source = model or DEFAULT_MODEL
    with logged_notes(verbose):
        opened = Model.open(source, vae=other_vae, prediction=prediction, zero_snr=zero_snr)
    plan = opened.plan(request)
    if output == "-" and as_json:
        raise UsageError("--json and -o - both want stdout; choose one")
    if output == "-" and stdout_is_closed():
        raise UsageError("-o -: stdout is closed; give a file's name")
    style = OutputStyle(collision="overwrite" if overwrite else "number")
    sink = PictureOutput(output, pictures=plan.count, style=style)
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
    with progress(quiet=quiet) as display:
        tracker = Tracker(display, plan)
        return_freed_memory()
        try:
            with loading_to_stay():
                from diffgen.engine.engine import Engine

                engine = Engine.load(model, device=device, dtype=dtype, loras=loras)
            for picture in engine.generate(plan, on_step=keep_from_first_step(tracker.on_step)):
                _deliver(picture, sink, as_json=as_json)
                display.say(tracker.finished(picture.record))
        except KeyboardInterrupt as asked:
            raise Stopped(asked, tracker.rest()) from asked


def _deliver(picture: GeneratedImage, sink: PictureOutput, *, as_json: bool) -> None:
    """Save a picture and tell where, or what it is."""
    with reported_pipe():
        path = sink.save(picture.image, picture.record)
    if path and as_json:
        print_json({"path": str(path), **picture.record})
    elif path:
        print_result(str(path))


class Tracker:
    """Counts the steps and pictures of a run."""

    def __init__(self, display: Display, plan: GeneratePlan) -> None:
        self._display, self._plan = display, plan
        self._pictures, self._done = plan.count, 0
        self._batches, self._begun = -(-plan.count // plan.batch_size), 0
        self._start: float | None = None

    def on_step(self, info: StepInfo) -> None:
        self._start = self._start or time.monotonic()
        if info.index == 0:
            self._begun += 1
        label = _count(self._pictures, "picture")
        if not info.total:  # an adaptive sampler: nobody knows how many steps are left
            self._display.update(label, info.index + 1, None)
            return
        done = (self._begun - 1) * info.total + info.index + 1
        self._display.update(label, done, self._batches * info.total)

    def finished(self, record: Mapping[str, Any]) -> str:
        """The line about a picture: which it is, what it took, and how long the rest will."""
        self._done += 1
        if self._pictures == 1:
            return _summary(record)
        per_picture = (time.monotonic() - (self._start or 0.0)) / self._done
        minutes, seconds = divmod(round(per_picture * (self._pictures - self._done)), 60)
        left = f", {minutes}:{seconds:02} left" if self._done < self._pictures else ""
        return f"{self._done}/{self._pictures} {_summary(record)}{left}"

    def rest(self) -> str:
        """For the line about being stopped: what is made, and how to make the others."""
        prompts, seeds = self._plan.prompts, self._plan.seeds
        if not self._done:
            return "; no picture was made"
        made, left = (
            f" after {self._done} of {self._pictures} pictures",
            self._pictures - self._done,
        )
        if not left:
            return made
        prompt, seed = prompts[self._done // len(seeds)], seeds[self._done % len(seeds)]
        if len(prompts) == 1:
            return f"{made}; --seed {seed} -c {left} makes the rest"
        return f"{made}; the next is {_shown(prompt)} seed {seed}"


def _shown(prompt: str) -> str:
    return one_line(json.dumps(prompt, ensure_ascii=False), PROMPT_SHOWN)


def _summary(record: Mapping[str, Any]) -> str:
    seconds = sum(record["timings"].values())
    return (
        f"{_shown(record['prompt'])} seed {record['seed']}, "
        f"{_count(record['steps'], 'step')} of {record['sampler']}, {seconds:.2f} s"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
