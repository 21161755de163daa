"""Reports of `generate`: a line a picture, a bar, or events for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.cli.console import print_error, print_event, print_json, print_result
from diffgen.cli.memory import keep_from_first_step
from diffgen.cli.progress import Display
from diffgen.errors import one_line
from diffgen.types import ProgressKind, StepInfo, ignore

if TYPE_CHECKING:
    from diffgen.batch.plan import BatchPlan, Job
    from diffgen.cli.pace import Pace

PROMPT_SHOWN = 150  # characters


class Tracker:
    """Counts and reports the steps and pictures of a run. `file` is what the prompt file is called.

    `pace` learns how long pictures take.
    """

    def __init__(
        self,
        display: Display,
        plan: BatchPlan,
        *,
        kind: ProgressKind = "auto",
        as_json: bool = False,
        file: str | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._display, self._plan, self._file, self._pace = display, plan, file, pace
        self._events, self._as_json = kind == "json", as_json
        self._pictures, self._done, self._made = plan.count, 0, 0
        self._steps = 0
        self._start: float | None = None
        self._keep = keep_from_first_step(ignore)

    def expect(self, pictures: int) -> None:
        """Add pictures to the expected number."""
        self._pictures += pictures

    def on_step(self, info: StepInfo, batch: Sequence[Job]) -> None:
        self._keep(info)
        self._start = self._start or time.monotonic()
        self._steps += len(batch)
        if self._events:
            at = {"step": info.index + 1, "steps": info.total or None}
            print_event({"event": "step", **at, "done": self._done, "pictures": self._pictures})
        label = counted(self._pictures, "picture")
        if not info.total:  # an adaptive sampler: the remaining steps are unknown
            self._display.update(label, info.index + 1, None)
        else:
            self._display.update(label, self._steps, self._plan.steps or None)

    def made(self, job: Job, path: Path | None, record: Mapping[str, Any]) -> None:
        """Report a picture's path or record, and the progress of the run."""
        if path and self._as_json:
            print_json({"path": str(path), **record})
        elif path:
            print_result(str(path))
        self._made += 1
        if self._pace:
            self._pace.learn(job, record)
        self._tell("made", job, path, _summary(record))

    def failed(self, job: Job, reason: str) -> None:
        where = f"{self._file}:{job.line}: " if self._file else ""
        print_error(f"{where}{reason}")
        if self._as_json:
            print_json({"line": job.line, "prompt": job.prompt, "seed": job.seed, "error": reason})
        self._tell("failed", job, None, "")

    def refused(self, line: int, reason: str) -> None:
        """Report a line of stdin that asks for no picture; a program may wait for its answer."""
        print_error(f"{self._file}:{line}: {reason}")
        if self._as_json:
            print_json({"line": line, "error": reason})
        self.expect(1)
        self._tell_line("failed", {"line": line, "seed": None, "path": None})

    def skipped(self, job: Job, path: Path | None) -> None:
        self._steps += job.plan.steps
        self._tell("skipped", job, path, "")

    def _tell(self, what: str, job: Job, path: Path | None, summary: str) -> None:
        self._tell_line(what, {"line": job.line, "seed": job.seed, "path": path and str(path)})
        if summary and not self._events:
            self._display.say(self._line(summary))

    def _tell_line(self, what: str, picture: Mapping[str, Any]) -> None:
        self._done += 1
        if self._events:
            counts = {"done": self._done, "pictures": self._pictures}
            print_event({"event": what, **picture, **counts, "seconds_left": self._seconds_left()})

    def _line(self, summary: str) -> str:
        """The line about a picture: its settings, its time, and the time left."""
        if self._pictures == 1:
            return summary
        seconds = self._seconds_left()
        minutes, rest = divmod(seconds or 0, 60)
        left = f", {minutes}:{rest:02} left" if seconds is not None else ""
        return f"{self._done}/{self._pictures} {summary}{left}"

    def _seconds_left(self) -> int | None:
        if self._done >= self._pictures or not self._made:
            return None
        per_picture = (time.monotonic() - (self._start or time.monotonic())) / self._made
        return round(per_picture * (self._pictures - self._done))

    def rest(self, *, goes_on: bool) -> str:
        """For the message after a signal: what is finished, and the command for the rest."""
        again = "; the same command goes on" if goes_on else ""
        if not self._done:
            return f"; no picture was made{again}"
        made = f" after {self._done} of {self._pictures} pictures"
        left = self._pictures - self._done
        if not left or goes_on:
            return made + again
        job = next(job for i, job in enumerate(self._jobs()) if i == self._done)
        if len(self._plan) == 1:
            return f"{made}; --seed {job.seed} -c {left} makes the rest"
        return f"{made}; the next is {_shown(job.prompt)} seed {job.seed}"

    def _jobs(self) -> Sequence[Job]:
        return [job for _, batches in self._plan.stocks() for batch in batches for job in batch]


def _shown(prompt: str) -> str:
    return one_line(json.dumps(prompt, ensure_ascii=False), PROMPT_SHOWN)


def _summary(record: Mapping[str, Any]) -> str:
    seconds = sum(record["timings"].values())
    return (
        f"{_shown(record['prompt'])} seed {record['seed']}, "
        f"{_steps(record)} of {record['sampler']}, {seconds:.2f} s"
    )


def _steps(record: Mapping[str, Any]) -> str:
    """`10 steps`, or `6 of 10 steps` after editing; two passes as `10 + 4 steps`."""
    steps, run = record["steps"], record.get("steps_run", record["steps"])
    if (again := record.get("hires_steps_run")) is not None:
        return f"{run} + {again} steps"
    return counted(steps, "step") if run == steps else f"{run} of {counted(steps, 'step')}"


def counted(number: int, noun: str) -> str:
    """`1 step` or `7 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
