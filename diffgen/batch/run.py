"""Draw the pictures of a plan, and record each; the failure of one affects no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffgen.batch.files import Problem, logged_reason
from diffgen.batch.journal import Journal
from diffgen.batch.plan import BatchPlan, Job
from diffgen.batch.stock import Stock
from diffgen.batch.writer import Writer
from diffgen.engine.output import PictureOutput
from diffgen.errors import DeviceLost, DiffgenError, OutOfMemory, OutputError, UsageError
from diffgen.types import StepInfo

if TYPE_CHECKING:
    from PIL import Image

    from diffgen.engine.drawing import GeneratedImage
    from diffgen.engine.engine import Engine

logger = logging.getLogger("diffgen")


class Listener(Protocol):
    """Receives the events of a run, from two threads."""

    def on_step(self, info: StepInfo, batch: Sequence[Job]) -> None: ...

    def made(self, job: Job, path: Path | None, record: Mapping[str, Any]) -> None: ...

    def failed(self, job: Job, reason: str) -> None: ...

    def refused(self, line: int, reason: str) -> None: ...

    def skipped(self, job: Job, path: Path | None) -> None: ...


class Watcher(Protocol):
    """Previews pictures in progress."""

    def on_step(self, info: StepInfo, engine: Engine) -> None: ...


class Viewer(Protocol):
    """Receives each written picture, as a contact sheet does."""

    def add(self, image: Image.Image, record: Mapping[str, Any]) -> None: ...


@dataclass(slots=True)
class Tally:
    """The counts of a run."""

    made: int = 0
    failed: int = 0
    skipped: int = 0
    elsewhere: int = 0  # what other processes of the same run made, make or failed to make
    failures: list[dict[str, Any]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def exit_code(self) -> int:
        """0 if all succeeded, 3 if some failed, 1 if all did."""
        if not self.failed:
            return 0
        return 3 if self.made or self.skipped else 1

    @property
    def done(self) -> int:
        return self.made + self.failed + self.skipped

    def closing(self) -> str:
        """`498 made, 2 failed, 0 skipped in 41:07`."""
        took = as_clock(time.monotonic() - self.begun)
        others = f"; {self.elsewhere} are another process's" if self.elsewhere else ""
        return f"{self.made} made, {self.failed} failed, {self.skipped} skipped in {took}{others}"


def as_clock(seconds: float) -> str:
    """`41:07`, or `1:41:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(eq=False)
class Run:
    """One process's part in drawing the pictures of a plan.

    `load` makes an engine; `saving` is a context around writing a picture. Setting `stopping` ends
    the run after the batch in progress.
    """

    plan: BatchPlan
    output: PictureOutput
    load: Callable[[Stock], Engine]
    listener: Listener
    _: KW_ONLY
    journal: Journal | None = None
    stop_on_error: bool = False
    viewers: Sequence[Viewer] = ()
    watcher: Watcher | None = None
    saving: Callable[[], AbstractContextManager[None]] = nullcontext

    def __post_init__(self) -> None:
        self.tally = Tally()
        self.stopping = threading.Event()
        self._counting = threading.Lock()  # two threads count
        self._at_most = 1 << 30  # batch size that fits into memory
        self._again = False  # whether this is a later pass over the plan
        self._told: list[str] = []  # settings of the previous batch
        self._left: list[Sequence[Job]] = []  # of the current batch, the last first
        self._stock: Stock | None = None
        self._engine: Engine | None = None  # of that stock

    def run(self, plan: BatchPlan | None = None) -> Tally:
        """Draw a plan, by default the one given at first, until it is done or `stopping` is set.

        A picture that fails, even by a bug, affects no other. Raises OutputError if a picture
        cannot be written and DeviceLost, which both end a resumable run, and with `stop_on_error`
        the first failure.
        """
        self.plan, self._again = plan or self.plan, False
        with Writer(self._write) as writer:
            for jobs in self._portions():
                assert self._engine is not None
                try:
                    pictures = self._engine.draw(
                        jobs[0].plan,
                        [replace(job.picture, own=job.plan) for job in jobs],
                        on_step=partial(self._report, jobs),
                    )
                except Exception as error:
                    self._divide(jobs, error)
                else:
                    writer.put(jobs, pictures)
        if self.journal and not self.stopping.is_set():
            self.tally.elsewhere = self.plan.count - self.tally.done
        return self.tally

    def refuse(self, problem: Problem) -> None:
        """Count a line that asks for no picture as failed; with `stop_on_error`, raise its error."""
        if self.stop_on_error:
            raise problem.error or UsageError(problem.message)
        self._count_failure({"line": problem.line, "error": problem.message})
        self.listener.refused(problem.line, problem.message)

    def _portions(self) -> Iterator[Sequence[Job]]:
        """Batches for `_engine`, divided to fit into memory."""
        for stock, batch in self._batches():
            self._left = [batch]
            while self._left:
                jobs, size = self._left.pop(), self._at_most
                if len(jobs) > size:
                    parts = [jobs[i : i + size] for i in range(0, len(jobs), size)]
                    self._left += reversed(parts)
                elif self._have(stock, jobs):
                    self._tell_settings(jobs)
                    yield jobs

    def _batches(self) -> Iterator[tuple[Stock, Sequence[Job]]]:
        """The batches that this process claims, in passes over the plan until nothing is left."""
        while not self.stopping.is_set():
            before = self.tally.made
            for stock, batches in self.plan.stocks():
                for batch in batches:
                    if self.stopping.is_set():
                        return
                    if jobs := self._taken(batch):
                        yield stock, jobs
            first_pass, self._again = not self._again, True
            if self.journal is None or not (first_pass or self.tally.made > before):
                return

    def _have(self, stock: Stock, jobs: Sequence[Job]) -> bool:
        """Whether an engine of a stock is loaded; if that fails, so do its pictures."""
        try:
            self._use(stock)
        except DeviceLost:
            raise  # no other picture would fare better
        except Exception as error:
            self._fail(jobs, error)
            return False
        return True

    def _use(self, stock: Stock) -> None:
        """Load a stock's engine; there is one at a time, whose LoRAs may be exchanged."""
        if self._engine and self._stock and self._stock is not stock:
            if self._stock.base == stock.base:
                self._engine.use_loras(stock.adapters.loras)
                self._stock = stock
            else:
                self._engine = None  # before the next one needs the memory
        if self._engine is None:
            self._engine, self._stock = self.load(stock), stock

    def _divide(self, jobs: Sequence[Job], error: Exception) -> None:
        """Draw in halves if memory ran out, singly if one failed.

        Call it after the `except` block: the exception keeps the tensors of the network alive.
        """
        if not isinstance(error, DiffgenError):
            self._engine = None  # a bug may leave the engine in any state
        if isinstance(error, DeviceLost):
            raise error
        if len(jobs) == 1:
            self._fail(jobs, error)
        elif isinstance(error, OutOfMemory):
            self._at_most = len(jobs) // 2
            self._left.append(jobs)
        else:
            self._left += [[job] for job in reversed(jobs)]

    def _report(self, jobs: Sequence[Job], info: StepInfo) -> None:
        self.listener.on_step(info, jobs)
        if self.watcher and self._engine:
            self.watcher.on_step(info, self._engine)

    def _taken(self, batch: Sequence[Job]) -> list[Job]:
        """The pictures of a batch still to be drawn, claimed by this process."""
        wanted = [job for job in batch if not self._is_there(job)]
        if self.journal is None:
            return [] if self._again else wanted
        free = set(self.journal.take([job.key for job in wanted]))
        if not self._again:
            for job in wanted:
                entry = None if job.key in free else self.journal.entry(job.key)
                if entry and entry.state == "made":
                    self._skip(job, self.journal.path.parent / (entry.path or ""))
        return [job for job in wanted if job.key in free]

    def _is_there(self, job: Job) -> bool:
        path = self.output.existing(name_fields(job), line=job.line)
        if path is not None and not self._again:
            self._skip(job, path)
        return path is not None

    def _skip(self, job: Job, path: Path | None) -> None:
        self.tally.skipped += 1
        self.listener.skipped(job, path)

    def _tell_settings(self, part: Sequence[Job]) -> None:
        told = list(dict.fromkeys(job.plan.summary() for job in part))
        for summary in told:
            if summary not in self._told:
                logger.info("%s", summary)
        self._told = told

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        if self.stop_on_error:
            raise error
        reason = logged_reason(error)
        for job in jobs:
            self._count_failure({"line": job.line, "seed": job.seed, "error": reason})
            if self.journal:
                self.journal.failed(job.key, reason, line=job.line)
            self.listener.failed(job, reason)

    def _count_failure(self, failure: dict[str, Any]) -> None:
        with self._counting:
            self.tally.failed += 1
            self.tally.failures.append(failure)

    def _write(self, job: Job, picture: GeneratedImage) -> None:
        record = dict(picture.record)
        if job.template != job.prompt:
            record["template"] = job.template

        def noted(path: Path, size: int) -> None:
            assert self.journal is not None
            seconds = sum(record["timings"].values())
            self.journal.made(job.key, path, size, line=job.line, seconds=round(seconds, 3))

        try:
            with self.saving():
                path = self.output.save(
                    picture.image, record, line=job.line, noted=noted if self.journal else None
                )
        except (OutputError, OSError):
            raise  # the next picture would fail, too
        except Exception as error:
            self._fail([job], error)
            return
        for viewer in self.viewers:
            viewer.add(picture.image, record)
        with self._counting:
            self.tally.made += 1
        self.listener.made(job, path, record)


def name_fields(job: Job) -> dict[str, Any]:
    """The fields of a file name that are known before drawing."""
    plan = job.plan.of([job.picture])
    return {
        "prompt": job.prompt,
        "negative": plan.request.negative,
        "seed": job.seed,
        "sampler": plan.sampling.spec.name,
        "schedule": plan.sampling.schedule,
        "steps": plan.sampling.steps_asked,
        "guidance_scale": plan.guidance_scale,
        "width": plan.width,
        "height": plan.height,
        "model": job.model,
    }
