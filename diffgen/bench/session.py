"""A whole sweep, from a request to stored results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from diffgen.bench.answer import MARGIN, Question
from diffgen.bench.assemble import Task, assemble
from diffgen.bench.grid import PlannedCell, plan_cell, plan_cells, points_of
from diffgen.bench.limits import solution_of
from diffgen.bench.pictures import read_png
from diffgen.bench.request import SweepRequest
from diffgen.bench.results import Results
from diffgen.bench.storage import Journal, write_results
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.engine.model import Model
from diffgen.engine.plan import GeneratePlan
from diffgen.settings.axes import Point
from diffgen.settings.sampling import Sampling

if TYPE_CHECKING:
    from PIL import Image

    from diffgen.bench.subject import EngineSubjects
    from diffgen.bench.sweep import Listener
    from diffgen.types import DtypeName

SAVE_EVERY = 5.0  # seconds


class Film(NamedTuple):
    """The denoised estimate of every step of one run, and the noise level it was made at."""

    name: str
    frames: Sequence[Image.Image]
    sigmas: Sequence[float]


class Session:
    """One sweep on one model. Making it checks all that can be checked before weights are read."""

    def __init__(self, request: SweepRequest) -> None:
        """Raises UsageError where the request does not fit the model, WeightsError or ConfigError
        for a damaged model, DeviceError for a device that is not there.
        """
        self.request = request
        self.opened = Model.open_source(request)
        self._own = self.opened.plan(request.generate_request())
        cells = self._with_yours(plan_cells(request.grid(), self.plan_run))
        points = dict.fromkeys(point for cell in cells for point in _points(cell))
        plans = {point: self._plan_at(point) for point in points}
        from diffgen.bench.subject import describe_machine  # imports torch

        machine = describe_machine(self.opened, request.device, request.dtype)
        self.task = Task(
            request=request,
            model=self.opened.name,
            plan=self._own,
            cells=cells,
            machine=machine,
            plans=plans,
        )
        self._journal: Journal | None = None
        self._subjects: EngineSubjects | None = None

    def open(self, folder: Path, *, fresh: bool = False) -> None:
        """Begin the folder, or go on with it. Raises UsageError (see Journal)."""
        conditions = self.task.conditions(_fingerprint(self.opened))
        self._journal = Journal.open(folder, conditions, fresh=fresh)

    def _plan_at(self, point: Point) -> GeneratePlan:
        request = self.request.at(point)
        plan = self.opened.plan(request.generate_request())
        # Steps and schedule are the cells'; fast would choose others where nobody says.
        return replace(plan, request=replace(plan.request, fast=request.fast))

    def _with_yours(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """With what `generate` does by default, at each point: the answer is held against it.

        Left out where the user chose the steps, and where the reference takes fewer.
        """
        plan = self._own.sampling
        steps = len(plan.sigmas) - 1
        if not self.request.takes_default_steps or steps > self.request.reference:
            return cells
        asked = Sampling(sampler=plan.spec.name, schedule=plan.schedule, steps=steps)
        points = points_of(self.request.grid(), plan.spec.name)
        yours = [plan_cell(asked, point, self.plan_run) for point in points]
        measured = {cell.key for cell in cells}
        return [*cells, *(cell for cell in yours if cell.key not in measured)]

    @property
    def journal(self) -> Journal:
        """What has been measured; there once the folder is open."""
        assert self._journal is not None
        return self._journal

    def plan_run(self, settings: Sampling) -> SamplingPlan:
        """One run as `generate` would make it with this model. Raises UsageError.

        The default schedule of the model's own sampler is the one that goes with it.
        """
        own, schedule = self._own.sampling, settings.schedule
        if settings.sampler == own.spec.name:
            schedule = schedule or own.schedule
        eta = self.request.eta if settings.eta is None else settings.eta
        if settings.sampler is None or "eta" not in SAMPLERS[settings.sampler].options:
            eta = None
        request = self.request.generate_request(
            sampler=settings.sampler, schedule=schedule, steps=settings.steps, eta=eta
        )
        return self.opened.plan(request).sampling

    def measure(self, listener: Listener, announce: Callable[[int], None]) -> None:
        """Load the model and measure what the folder lacks, storing results all the while.

        `announce` is told how many network evaluations are to come. May be interrupted at any
        point: `results` gives what there is. Raises UsageError for a CLIP model that cannot be
        loaded, and what loading a model raises.
        """
        if self._is_complete():
            announce(0)
            return
        from diffgen.bench.clip_score import ClipScorer
        from diffgen.bench.sweep import Sweep

        listener.begin("loading")
        scorer = self.request.clip and ClipScorer(self.request.clip)
        sweep = Sweep(
            subjects=self._load(),
            pictures=self.request.pictures(),
            cells=self.task.cells,
            journal=self.journal,
            listener=listener,
            reference_steps=self.request.reference,
            repeats=self.request.repeats,
            scorer=scorer or None,
            floor=Question(target_psnr=self.request.target_psnr).target + MARGIN,
        )
        announce(sweep.calls())
        saved = time.monotonic()
        for _ in sweep.run():
            if time.monotonic() - saved > SAVE_EVERY:
                self.results()
                saved = time.monotonic()

    def results(self) -> Results:
        """What has been measured so far, stored in the folder. Raises OutputError."""
        results = assemble(self.task, self.journal)
        write_results(results, self.journal.path.parent)
        return results

    def film(self, plan: SamplingPlan) -> Film:
        """Draw the first picture once more and keep what each step took it to be."""
        from diffgen.bench.frames import denoised_frames

        frames, sigmas = denoised_frames(self._load().cell(self.request.points()[0]), plan)
        name = f"trajectory-{plan.spec.name}-{plan.schedule}-{len(plan.sigmas) - 1}"
        return Film(name, frames, sigmas)

    def _is_complete(self) -> bool:
        rounds = range(max(len(self.request.pictures()), self.request.repeats))
        keys = [cell.key for cell in self.task.cells]
        measured = all((key, number) in self.journal.runs for key in keys for number in rounds)
        folder = self.journal.path.parent
        shown = (read_png(folder / one.picture) for one in self.journal.references.values())
        return measured and not self.journal.outdated() and None not in shown

    def _load(self) -> EngineSubjects:
        from diffgen.bench.subject import EngineSubjects
        from diffgen.engine.engine import Engine

        if self._subjects is None:
            dtype = cast("DtypeName", self.task.machine.dtype)
            engine = Engine.load(self.opened, device=self.request.device, dtype=dtype)
            pictures = self.request.pictures()
            self._subjects = EngineSubjects(engine, self.task.plans, pictures)
            if self._journal:
                self._journal.add_text_seconds(self._subjects.text_seconds)
        return self._subjects


def _points(cell: PlannedCell) -> tuple[Point, Point]:
    """Where a cell is, and where its reference is."""
    return cell.point, solution_of(cell.point)


def _fingerprint(model: Model) -> str:
    """Tells when the weights of a model have been written anew."""
    files = {file for tensors in model.checkpoint.tensors.values() for file in tensors.files}
    files |= {lora.path for lora in model.loras}
    stats = [(file.name, file.stat()) for file in sorted(files)]
    text = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return blake2b(text.encode(), digest_size=6).hexdigest()
