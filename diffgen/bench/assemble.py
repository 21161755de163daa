"""From a journal of runs to the results that are stored and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from diffgen.bench.answer import (
    MARGIN,
    Question,
    find_knees,
    pareto_front,
    pick_baseline,
    recommend,
)
from diffgen.bench.command import generate_command
from diffgen.bench.compare import SAME
from diffgen.bench.grid import PlannedCell
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
from diffgen.bench.storage import Journal
from diffgen.engine.plan import GeneratePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request settled for one model: the cells to measure and what "yours" is."""

    request: SweepRequest
    model: str
    plan: GeneratePlan  # of `generate` without any sampler option
    cells: Sequence[PlannedCell]
    machine: Machine

    def conditions(self, weights: object) -> dict[str, Any]:
        """All that decides what a run gives; `weights` tells versions of the model apart."""
        settings = self.request.settings(self.plan)
        names = (*SAME, "reference", "clip", "prediction", "zero_snr", "shift", "clip_skip")
        versions = dict(self.machine.versions)
        return {
            "model": self.model,
            "weights": weights,
            **{name: settings[name] for name in names},
            "device": self.machine.device,
            "dtype": self.machine.dtype,
            "threads": self.machine.threads,
            **versions,
        }


def assemble(task: Task, journal: Journal) -> Results:
    """The results of what has been measured so far."""
    request, sampling = task.request, task.plan.sampling
    cells = [_cell(task, planned, journal) for planned in task.cells]
    measured = tuple(cell for cell in cells if cell is not None)
    references = {
        name: reference
        for name, reference in journal.references.items()
        if any(name == (cell.sampler if cell.stochastic else "") for cell in measured)
    }
    baseline = pick_baseline(
        measured, sampling.spec.name, str(sampling.schedule), len(sampling.sigmas) - 1
    )
    question = Question(
        baseline=baseline,
        target_psnr=request.target_psnr,
        budget_seconds=request.budget_seconds,
        prompts=len(request.prompts),
    )
    return Results(
        schema=SCHEMA,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=task.model,
        settings=request.settings(task.plan) | {"baseline": baseline},
        machine=task.machine,
        text_seconds=journal.text_seconds,
        references=references,
        cells=measured,
        front=tuple(pareto_front(measured, references)),
        knees=find_knees(measured),
        recommendation=_advice(request, measured, references, question),
        notes=tuple(_notes(journal, references, question)),
    )


def _advice(
    request: SweepRequest,
    cells: Sequence[Cell],
    references: Mapping[str, Reference],
    question: Question,
) -> Recommendation | None:
    """The recommendation with the command that follows it."""
    advice = recommend(cells, references, question)
    if advice is None:
        return None
    cell = next(cell for cell in cells if cell.key == advice.cell)
    return replace(advice, command=generate_command(request, cell))


def _notes(
    journal: Journal, references: Mapping[str, Reference], question: Question
) -> Iterator[str]:
    """What was measured again, and what is not known as well as it should be."""
    yield from (drift.sentence() for drift in journal.drifts)
    for name, reference in references.items():
        if reference.floor_psnr < question.target + MARGIN:
            yield (
                f"the reference{f' of {name}' if name else ''} has not converged for "
                f"{question.target:.4g} dB: with {reference.steps} steps its two solutions agree "
                f"to {reference.floor_psnr:.1f} dB, and distances near that are not known well"
            )


def _cell(task: Task, planned: PlannedCell, journal: Journal) -> Cell | None:
    runs = journal.runs_of(planned.key)
    if not runs:
        return None
    settings: Mapping[str, float | int | str | None] = {
        "guidance": task.plan.guidance_scale,
        "width": task.plan.width,
        "height": task.plan.height,
        "negative": task.plan.request.negative,
    }
    return make_cell(planned, runs, settings)
