"""`diffgen generate`: prompts to pictures."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffgen.cli.console import logged_notes, print_json, print_result, reported_pipe
from diffgen.cli.memory import keep_from_first_step, loading_to_stay, return_freed_memory
from diffgen.cli.progress import Display, progress
from diffgen.cli.prompts import check_syntax, read_prompts
from diffgen.cli.signals import Stopped
from diffgen.cli.signature import Prompts, with_settings
from diffgen.cli.streams import stdout_is_closed
from diffgen.cli.threads import settle_threads
from diffgen.errors import UsageError, one_line
from diffgen.settings.editing import Editing, Enlarging, Varying
from diffgen.settings.groups import (
    Adapters,
    Guidance,
    Machine,
    Number,
    Output,
    Prompting,
    Reading,
    Sampling,
    Size,
    Source,
    Talk,
    Threads,
)
from diffgen.settings.setting import rows
from diffgen.types import StepInfo

if TYPE_CHECKING:
    from diffgen.engine.engine import GeneratedImage
    from diffgen.engine.model import Model
    from diffgen.engine.output import PictureOutput
    from diffgen.engine.request import GeneratePlan

PROMPT_SHOWN = 150  # characters
ANY_SEED = -1  # as A1111 has it


@with_settings(
    *(Reading, Prompting, Size, Number, Sampling, Guidance, Source, Adapters),
    *(Editing, Enlarging, Varying),
    *(Output, Machine, Threads, Talk),
    configured=None,
)
def generate(prompts: Prompts = None, *, given: dict[str, Any]) -> None:
    """Make pictures from prompts.

    The path of each picture is printed as soon as it is finished.
    """
    settle_threads(given.get("threads"))
    # Not above: --help and the other commands do without.
    from diffgen.engine.model import Model
    from diffgen.engine.output import OutputStyle, PictureOutput
    from diffgen.engine.request import GenerateRequest

    # Understand the request.
    reading, source, talk = Reading.of(given), Source.of(given), Talk.of(given)
    adapters, machine, output = Adapters.of(given), Machine.of(given), Output.of(given)
    texts = read_prompts(prompts, reading.prompt_file)
    request = GenerateRequest(prompts=texts, **_request_settings(given))
    # Open the model, and check the request against it.
    with logged_notes(talk.verbose):
        opened = Model.open_source(source)
    plan = opened.plan(request)
    check_syntax(plan, strict=reading.strict, embeddings=bool(adapters.embeddings))
    # See that the pictures can be put where they belong.
    _check_stdout(output)
    style = OutputStyle(collision="overwrite" if output.overwrite else "number")
    sink = PictureOutput(output.output, pictures=plan.count, style=style)
    with logged_notes(talk.verbose):
        _run(opened, adapters, plan, sink, machine, as_json=output.as_json, quiet=talk.quiet)


def _request_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The request's own settings, with a random seed where none was given."""
    from diffgen.engine.request import GenerateRequest

    found = {name: given[name] for name in rows(GenerateRequest) if name in given}
    if found.get("seed", ANY_SEED) == ANY_SEED:
        found["seed"] = secrets.randbelow(2**32)
    return found


def _check_stdout(output: Output) -> None:
    if output.output == "-" and output.as_json:
        raise UsageError("--json and -o - both want stdout; choose one")
    if output.output == "-" and stdout_is_closed():
        raise UsageError("-o -: stdout is closed; give a file's name")


def _run(
    model: Model,
    adapters: Adapters,
    plan: GeneratePlan,
    sink: PictureOutput,
    machine: Machine,
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

                engine = Engine.load(
                    model,
                    device=machine.device,
                    dtype=machine.dtype,
                    loras=adapters.loras,
                    embeddings=adapters.embeddings,
                )
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
        steps = [plan.sampling.spec.steps(p.sampling.sigmas) for p in (plan, plan.second) if p]
        self._steps = sum(steps)  # of a batch, in all its passes
        self._offsets = [0, *steps]
        self._passes = len(steps)

    def on_step(self, info: StepInfo) -> None:
        self._start = self._start or time.monotonic()
        if info.index == 0:
            self._begun += 1
        label = _count(self._pictures, "picture")
        if not info.total:  # an adaptive sampler: nobody knows how many steps are left
            self._display.update(label, info.index + 1, None)
            return
        batch, part = divmod(self._begun - 1, self._passes)
        done = batch * self._steps + self._offsets[part] + info.index + 1
        self._display.update(label, done, self._batches * self._steps)

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
        prompts, seeds = self._plan.request.prompts, self._plan.seeds
        if not self._done:
            return "; no picture was made"
        made, left = (
            f" after {self._done} of {self._pictures} pictures",
            self._pictures - self._done,
        )
        if not left:
            return made
        prompt = prompts[self._done // len(seeds) % len(prompts)]
        seed = seeds[self._done % len(seeds)]
        if self._pictures == len(seeds):
            return f"{made}; --seed {seed} -c {left} makes the rest"
        return f"{made}; the next is {_shown(prompt)} seed {seed}"


def _shown(prompt: str) -> str:
    return one_line(json.dumps(prompt, ensure_ascii=False), PROMPT_SHOWN)


def _summary(record: Mapping[str, Any]) -> str:
    seconds = sum(record["timings"].values())
    return (
        f"{_shown(record['prompt'])} seed {record['seed']}, "
        f"{_steps(record)} of {record['sampler']}, {seconds:.2f} s"
    )


def _steps(record: Mapping[str, Any]) -> str:
    """`10 steps`, or `6 of 10 steps` where a picture was changed."""
    steps, run = record["steps"], record.get("steps_run", record["steps"])
    return _count(steps, "step") if run == steps else f"{run} of {_count(steps, 'step')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
