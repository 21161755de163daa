"""What the figures come to: the Pareto front, each sampler's knee, and one recommendation.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from diffgen.bench.results import Cell, Recommendation, Reference

# At 30 dB two pictures are taken for the same unless one looks for the differences.
GOOD_PSNR = 30.0
# Times closer than this are the same time; then the closer picture wins. Samplers of equal cost
# came out up to 8 % apart on a small model and a quiet machine.
SAME_TIME = 1.1
KNEE_CELLS = 3
# A confidence interval in dB from here on says only that there were too few pictures.
WIDEST = 10.0

References: TypeAlias = Mapping[str, Reference]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the user wants of a cell, and which cell is "yours": the model's own default.

    `target_psnr` is the mean distance to the converged picture in dB that is good enough; None
    is 30 dB, or as much as the reference can tell apart. `budget_seconds` bounds a picture's
    sampling time.
    """

    baseline: str = ""  # Cell.key
    target_psnr: float | None = None
    budget_seconds: float | None = None


class Point(NamedTuple):
    """A cell with all that a choice needs; `psnr` counts no higher than its reference is sure."""

    cell: Cell
    seconds: float
    psnr: float


def pareto_front(cells: Sequence[Cell], references: References) -> list[str]:
    """Keys of the cells that no other beats, fastest first.

    One beats another by a closer picture in the same time or less, or the same picture in less.
    """
    points = sorted(_points(cells, references), key=lambda p: p.seconds)
    return [p.cell.key for p in points if not any(_beats(other, p) for other in points)]


def _beats(a: Point, b: Point) -> bool:
    closer = a.psnr > b.psnr and a.seconds <= b.seconds * SAME_TIME
    return closer or (a.psnr == b.psnr and a.seconds < b.seconds)


def find_knees(cells: Sequence[Cell]) -> dict[str, int]:
    """The step count of each sampler with its schedule after which more steps stop paying.

    SSIM against network evaluations, both scaled to 0 .. 1: the knee is where the curve is
    highest above its chord (Satopaa et al., "Finding a Kneedle in a Haystack", 2011). It needs
    three cells, and a curve that rises.
    """
    groups: dict[str, list[tuple[int, float, int]]] = {}
    for cell in cells:
        if cell.ssim and cell.status == "ok":
            name = f"{cell.sampler}-{cell.schedule}"
            groups.setdefault(name, []).append((cell.nfe, cell.ssim.mean, cell.steps))
    knees = {name: _knee(sorted(curve)) for name, curve in groups.items()}
    return {name: steps for name, steps in knees.items() if steps is not None}


def recommend(
    cells: Sequence[Cell], references: References, question: Question
) -> Recommendation | None:
    """The cheapest cell that is close enough, or the closest where none is; None for no cells."""
    points = _points(cells, references)
    budget = question.budget_seconds
    affordable = [p for p in points if budget is None or p.seconds <= budget]
    if not affordable:
        return _too_expensive(points, budget)
    target = _target(question, references)
    enough = [p for p in affordable if p.psnr >= target]
    if enough:
        limit = min(p.seconds for p in enough) * SAME_TIME
        choice = max((p for p in enough if p.seconds <= limit), key=lambda p: p.psnr)
        verdict = f"{target:.4g} is enough"
    else:
        choice = max(affordable, key=lambda p: p.psnr)
        within = "" if budget is None else f" within {budget:g} s"
        verdict = f"nothing measured reaches {target:.4g}{within}"
    sentence = (
        f"{describe(choice.cell)}: PSNR {_measured(choice)} dB to the converged "
        f"picture ({verdict}), {choice.seconds:.2g} s a picture"
        f"{_against(choice, points, question.baseline)}"
    )
    return Recommendation(cell=choice.cell.key, sentence=sentence)


def pick_baseline(cells: Sequence[Cell], sampler: str, schedule: str, steps: int) -> str:
    """The key of the model's own default, or of the same sampler with the most steps; or ""."""
    own = [c for c in cells if (c.sampler, c.schedule) == (sampler, schedule)]
    exact = [c for c in own if c.steps == steps]
    chosen = exact or sorted(own, key=lambda c: c.steps)[-1:]
    return chosen[0].key if chosen else ""


def describe(cell: Cell) -> str:
    """`dpmpp_2m + karras, 14 steps`."""
    return f"{cell.sampler} + {cell.schedule}, {cell.steps} step{'s' if cell.steps > 1 else ''}"


def _points(cells: Sequence[Cell], references: References) -> list[Point]:
    points = []
    for cell in cells:
        reference = references.get(cell.sampler if cell.stochastic else "")
        if cell.status == "ok" and cell.seconds and cell.psnr and reference:
            sure = min(cell.psnr.mean, reference.floor_psnr)
            points.append(Point(cell, cell.seconds.median, sure))
    return points


def _target(question: Question, references: References) -> float:
    if question.target_psnr is not None:
        return question.target_psnr
    return min(GOOD_PSNR, max(reference.floor_psnr for reference in references.values()))


def _against(choice: Point, points: Sequence[Point], baseline: str) -> str:
    yours = next((p for p in points if p.cell.key == baseline), None)
    if yours is None or yours.cell.key == choice.cell.key:
        return ""
    share = choice.seconds / yours.seconds
    return f", {share:.0%} of the time of your {describe(yours.cell)} ({_measured(yours)} dB)"


def _measured(point: Point) -> str:
    """`31.0 +- 1.2` as the table has it; an interval too wide to mean anything is left out."""
    psnr = point.cell.psnr
    assert psnr is not None
    interval = f" +- {psnr.ci95:.1f}" if len(psnr.values) > 1 and psnr.ci95 < WIDEST else ""
    return f"{psnr.mean:.1f}{interval}"


def _too_expensive(points: Sequence[Point], budget: float | None) -> Recommendation | None:
    if not points:
        return None
    fastest = min(points, key=lambda p: p.seconds)
    return Recommendation(
        cell=fastest.cell.key,
        sentence=(
            f"nothing measured stays within {budget:g} s; the fastest is {describe(fastest.cell)} "
            f"at {fastest.seconds:.2g} s"
        ),
    )


def _knee(curve: Sequence[tuple[int, float, int]]) -> int | None:
    """`curve` holds (evaluations, SSIM, steps) in ascending order."""
    (first, low, _), (last, high, _) = curve[0], curve[-1]
    if len(curve) < KNEE_CELLS or high <= low or last <= first:
        return None
    heights = [
        ((value - low) / (high - low) - (nfe - first) / (last - first), -nfe, steps)
        for nfe, value, steps in curve
    ]
    return max(heights)[2]
