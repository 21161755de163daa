"""From a journal of runs to the results that are stored and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from diffgen.bench.answer import (
    MARGIN,
    Question,
    pareto_front,
    pick_baseline,
    recommend,
)
from diffgen.bench.command import generate_command
from diffgen.bench.compare import SEVERAL, varied
from diffgen.bench.grid import PlannedCell
from diffgen.bench.journal import Journal
from diffgen.bench.knees import find_knees
from diffgen.bench.limits import by_solution
from diffgen.bench.request import SweepRequest
from diffgen.bench.results import (
    SCHEMA,
    Cell,
    Machine,
    Recommendation,
    Reference,
    Results,
)
from diffgen.bench.runs import make_cell
from diffgen.engine.plan import GeneratePlan
from diffgen.settings.axes import Point, title_of

# Settings that choose cells or evaluate them: a sweep may be resumed with others.
FREE = (
    *("samplers", "schedules", "steps", "nfe", "repeats", "target_psnr", "budget_seconds"),
    # Covered by other conditions: the files of weights, a name, a format.
    *("model", "vae", "base", "probe", "device", "dtype"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request resolved for one model: the cells to measure, and the key of "yours"."""

    request: SweepRequest
    models: Sequence[str]
    plan: GeneratePlan  # of `generate` without any sampler option, at the first point
    cells: Sequence[PlannedCell]
    machine: Machine
    dtype: str  # of `generate` where several are measured
    plans: Mapping[Point, GeneratePlan]  # the same at each point of the further axes

    def conditions(self, weights: object) -> dict[str, Any]:
        """Everything that determines a run's result; `weights` identifies the model's version."""
        settings = self.request.settings(self.plan)
        asked = {name: varied(name, value) for name, value in settings.items() if name not in FREE}
        versions = dict(self.machine.versions)
        return {
            "model": _unless_several(self.request, "model", ", ".join(self.models)),
            "weights": weights,
            **asked,
            "device": self.machine.device,
            "dtype": _unless_several(self.request, "dtype", self.machine.dtype),
            "threads": self.machine.threads,
            **versions,
        }


def _unless_several(request: SweepRequest, name: str, value: str) -> str:
    return SEVERAL if name in request.several else value


def assemble(task: Task, journal: Journal) -> Results:
    """The results of everything measured so far."""
    cells = [_cell(task, planned, journal) for planned in task.cells]
    measured = tuple(cell for cell in cells if cell is not None)
    limits = {cell.limit for cell in measured}
    references = {name: one for name, one in journal.references.items() if name in limits}
    answers = [_answer(task, group, references) for group in by_solution(measured)]
    advice = [answer.advice for answer in answers if answer.advice]
    question = _question(task, "")
    return Results(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=", ".join(task.models),
        settings=task.request.settings(task.plan)
        | {"baseline": answers[0].baseline if answers else ""},
        machine=task.machine,
        text_seconds=journal.text_seconds,
        references=references,
        cells=measured,
        front=tuple(key for answer in answers for key in answer.front),
        knees=find_knees(measured),
        recommendation=advice[0] if advice else None,
        other_recommendations=tuple(advice[1:]),
        notes=tuple(_notes(journal, references, question)),
    )


class _Answer(NamedTuple):
    """The evaluation of one solution's cells."""

    baseline: str
    front: Sequence[str]
    advice: Recommendation | None


def _answer(task: Task, cells: Sequence[Cell], references: Mapping[str, Reference]) -> _Answer:
    own = task.plans[cells[0].solution].sampling
    steps = own.steps_run
    defaults = {"eta": own.options.get("eta"), "fast": False, "dtype": task.dtype}
    baseline = pick_baseline(cells, own.spec.name, str(own.schedule), steps, defaults)
    limits = {cell.limit for cell in cells}
    theirs = {name: one for name, one in references.items() if name in limits}
    default = {cell.key: cell.steps for cell in cells}.get(baseline) == steps
    question = replace(_question(task, baseline), default=default)
    advice = _advice(task.request, cells, theirs, question)
    return _Answer(baseline, pareto_front(cells, theirs), advice)


def _question(task: Task, baseline: str) -> Question:
    return Question(
        baseline=baseline,
        target_psnr=task.request.target_psnr,
        budget_seconds=task.request.budget_seconds,
        prompts=len(task.request.prompts),
    )


def _advice(
    request: SweepRequest,
    cells: Sequence[Cell],
    references: Mapping[str, Reference],
    question: Question,
) -> Recommendation | None:
    """The recommendation with its command, and the solution it is for."""
    advice = recommend(cells, references, question)
    if advice is None:
        return None
    cell = next(cell for cell in cells if cell.key == advice.cell)
    title = title_of(cell.solution)
    return replace(
        advice,
        sentence=f"{title}: {advice.sentence}" if title else advice.sentence,
        command=generate_command(request, cell),
    )


def _notes(
    journal: Journal, references: Mapping[str, Reference], question: Question
) -> Iterator[str]:
    """Remarks on repeated measurements and on insufficient certainty."""
    yield from (drift.sentence() for drift in journal.drifts)
    for reference in references.values():
        if reference.floor_psnr < question.target + MARGIN:
            yield (
                f"the reference{f' of {reference.title}' if reference.title else ''} has not "
                "converged for "
                f"{question.target:.4g} dB: with {reference.steps} steps its two solutions agree "
                f"to {reference.floor_psnr:.1f} dB, and distances near that are not known well"
            )


def _cell(task: Task, planned: PlannedCell, journal: Journal) -> Cell | None:
    runs = journal.runs_of(planned.key)
    if not runs:
        return None
    plan = task.plans[planned.point]
    settings: Mapping[str, float | int | str | None] = {
        "guidance": plan.guidance_scale,
        "width": plan.width,
        "height": plan.height,
        "negative": plan.request.negative,
    }
    return make_cell(planned, runs, settings)
