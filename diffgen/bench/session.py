"""A whole sweep, from a request to stored results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from diffgen.bench.answer import MARGIN, Question
from diffgen.bench.assemble import Task, assemble
from diffgen.bench.compare import SEVERAL
from diffgen.bench.grid import PlannedCell, plan_cell, plan_cells, point_of
from diffgen.bench.journal import Journal
from diffgen.bench.limits import solution_of
from diffgen.bench.pictures import read_png
from diffgen.bench.request import SweepRequest
from diffgen.bench.result_files import write_results
from diffgen.bench.results import Machine, Results
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.engine.model import Model
from diffgen.engine.plan import GeneratePlan
from diffgen.settings.axes import Point
from diffgen.settings.sampling import Sampling
from diffgen.settings.setting import as_text

if TYPE_CHECKING:
    from PIL import Image

    from diffgen.bench.measure import Listener
    from diffgen.bench.subject import Build, EngineSubjects
    from diffgen.types import DtypeName

SAVE_EVERY = 5.0  # seconds


class Film(NamedTuple):
    """The denoised estimate at every step of one run, and each step's noise level."""

    name: str
    frames: Sequence[Image.Image]
    sigmas: Sequence[float]


class Session:
    """One sweep on one model. The constructor checks everything that needs no weights."""

    def __init__(self, request: SweepRequest) -> None:
        """Raises UsageError where the request does not fit the model, WeightsError or ConfigError
        for a damaged model and a LoRA that does not fit it, DeviceError for a device that is not
        there.
        """
        self.request = request
        self._models: dict[str, Model] = {}  # by what they were asked for by
        self._plans: dict[Point, GeneratePlan] = {}
        points = request.points()
        self.opened = self._model(points[0])
        cells = self._with_yours(plan_cells(request.grid(), self.plan_run))
        machine, dtype = self._machine()
        self._check_loras()
        self.task = Task(
            request=request,
            models=tuple(dict.fromkeys(self._model(point).name for point in points)),
            plan=self._plan_at(points[0]),
            cells=cells,
            machine=machine,
            dtype=dtype,
            plans={point: self._plan_at(point) for cell in cells for point in _points(cell)},
        )
        self._journal: Journal | None = None
        self._subjects: EngineSubjects | None = None

    def open(self, folder: Path, *, fresh: bool = False) -> None:
        """Begin the folder, or go on with it. Raises UsageError (see Journal)."""
        several, marked = self.request.several, self.request.marked
        weights = SEVERAL if "model" in several else _fingerprint(self.opened)
        files = [embedding.path for embedding in self.request.embeddings]
        files += [lora.path for lora in self.request.loras]
        values = {
            **{f"model {mark}": _fingerprint(self._models[m]) for mark, m in marked("model")},
            **{
                f"lora {mark}": _stamp([lora.path for lora in stack], as_text(stack))
                for mark, stack in marked("loras")
            },
        }
        conditions = self.task.conditions([weights, _stamp(files)] if files else weights)
        self._journal = Journal.open(folder, conditions, fresh=fresh, values=values)

    def _machine(self) -> tuple[Machine, str]:
        """Where the cells are drawn, and in which format `generate` does by default."""
        from diffgen.bench.subject import describe_machine  # imports torch

        request = self.request
        made = [
            describe_machine(self.opened, request.device, dtype)
            for dtype in request.values("dtype")
        ]
        own = describe_machine(self.opened, request.device, "auto")
        formats = ", ".join(each.dtype for each in made)
        return replace(made[0], dtype=formats), (made[0] if len(made) == 1 else own).dtype

    def _check_loras(self) -> None:
        """Raise WeightsError for a LoRA that does not fit a model, before hours of the others."""
        from diffgen.weights.adapters.files import read_lora

        stacks = self.request.values("loras")
        for lora in dict.fromkeys(lora for stack in stacks for lora in stack):
            for model in self._models.values():
                read_lora(lora.path, model.checkpoint, partial=lora.partial)

    def _model(self, point: Point) -> Model:
        request = self.request.at(point)
        if request.model not in self._models:
            self._models[request.model] = Model.open(request)
        return self._models[request.model]

    def _plan_at(self, point: Point) -> GeneratePlan:
        """What `generate` does by default at a point, drawn as there."""
        if point not in self._plans:
            request = self.request.at(point)
            plan = self._model(point).plan(request.generate_request())
            # Steps and schedule are the cells'; `fast` would choose its own.
            fast = replace(plan.request, fast=request.fast)
            self._plans[point] = replace(plan, request=fast)
        return self._plans[point]

    def _with_yours(self, cells: list[PlannedCell]) -> list[PlannedCell]:
        """Add the default of `generate` at each point, as the baseline.

        Left out if the user chose the steps, or if the reference takes fewer.
        """
        found = {cell.key: cell for cell in cells}
        for asked in self.request.points() if self.request.takes_default_steps else ():
            plan = self._plan_at(asked).sampling
            steps = plan.steps_run
            if steps <= self.request.reference:
                settings = Sampling(sampler=plan.spec.name, schedule=plan.schedule, steps=steps)
                cell = plan_cell(settings, point_of(asked, plan.spec.name), self.plan_run)
                found.setdefault(cell.key, cell)
        return list(found.values())

    @property
    def journal(self) -> Journal:
        """The measurements so far; available once the folder is open."""
        assert self._journal is not None
        return self._journal

    def plan_run(self, settings: Sampling, point: Point | None = None) -> SamplingPlan:
        """One run as `generate` would make it at a point. Raises UsageError.

        The model's own sampler keeps its default schedule.
        """
        point = self.request.points()[0] if point is None else point
        own, schedule = self._plan_at(point).sampling, settings.schedule
        if settings.sampler == own.spec.name:
            schedule = schedule or own.schedule
        eta = self.request.eta if settings.eta is None else settings.eta
        if settings.sampler is None or "eta" not in SAMPLERS[settings.sampler].options:
            eta = None
        request = self.request.at(point).generate_request(
            sampler=settings.sampler, schedule=schedule, steps=settings.steps, eta=eta
        )
        return self._model(point).plan(request).sampling

    def measure(self, listener: Listener, announce: Callable[[int], None]) -> None:
        """Load the model and measure what the folder lacks, storing results continuously.

        `announce` gets the number of network evaluations to come. May be interrupted at any point:
        `results` returns what there is. Raises UsageError for a CLIP model that cannot be loaded,
        and what loading a model raises.
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
        """Compute the results so far, and store them in the folder. Raises OutputError."""
        results = assemble(self.task, self.journal)
        write_results(results, self.journal.folder)
        return results

    def film(self, plan: SamplingPlan) -> Film:
        """Draw the first picture again, and record every step's estimate."""
        from diffgen.bench.subject import denoised_frames

        frames, sigmas = denoised_frames(self._load().cell(self.request.points()[0]), plan)
        name = f"trajectory-{plan.spec.name}-{plan.schedule}-{plan.steps_run}"
        return Film(name, frames, sigmas)

    def _is_complete(self) -> bool:
        rounds = range(max(len(self.request.pictures()), self.request.repeats))
        keys = [cell.key for cell in self.task.cells]
        measured = all((key, number) in self.journal.runs for key in keys for number in rounds)
        folder = self.journal.folder
        shown = (read_png(folder / one.picture) for one in self.journal.references.values())
        return measured and not self.journal.outdated() and None not in shown

    def _load(self) -> EngineSubjects:
        from diffgen.bench.subject import EngineSubjects

        if self._subjects is None:
            plans = self.task.plans
            keep = self._journal.add_text_seconds if self._journal else lambda seconds: None
            self._subjects = EngineSubjects(
                {point: (self._build(point), plan) for point, plan in plans.items()},
                {point: (self._build(point, truth=True), plan) for point, plan in plans.items()},
                self.request.pictures(),
                keep,
            )
        return self._subjects

    def _build(self, point: Point, *, truth: bool = False) -> Build:
        """What is loaded for the cells of a point, or for the reference of a solution.

        Where formats are compared, that is fp32: what another rounds away is part of its distance.
        """
        from diffgen.bench.subject import Build

        request = self.request.at(point)
        one = self.task.dtype if "dtype" not in self.request.several else "fp32"
        dtype = one if truth or request.dtype == "auto" else request.dtype
        return Build(
            self._model(point),
            request.device,
            cast("DtypeName", dtype),
            request.loras,
            request.embeddings,
        )


def _points(cell: PlannedCell) -> tuple[Point, Point]:
    """The plans of a cell and of its reference."""
    return cell.point, solution_of(cell.point)


def _fingerprint(model: Model) -> str:
    """A fingerprint of a model's weights files."""
    files = {file for tensors in model.checkpoint.tensors.values() for file in tensors.files}
    return _stamp(files | {lora.path for lora in model.loras})


def _stamp(files: Iterable[Path], settings: str = "") -> str:
    stats = [(file.name, file.stat()) for file in sorted(files)]
    text = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]) + settings
    return blake2b(text.encode(), digest_size=6).hexdigest()
