"""Conclusions from the figures: the Pareto front and a recommendation.

Only cells that solve the same equation are compared. Where an axis of the sweep changes the
equation, as the guidance scale does, each solution gets its own front, knees and recommendation:
no distance tells which solution a user prefers.

`RULE` decides whether a rival replaces "yours", the model's own default. Let d_i be the rival's
PSNR minus yours on picture i, drawn from the same noise by both, and n the number of pictures. The
rival is closer if

    mean(d) - t(n - 1, 0.05 / rivals) s(d) / sqrt(n) > 0

(Student's paired test; the error is divided by the number of rivals, after Dunn 1961, as the one
proposed is chosen among them). It is faster if the interval of log(its times / your times), after
Welch, lies below 0, and its median below 1 / `SAME_TIME` of yours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from diffgen.bench.results import Cell, Recommendation, Reference
from diffgen.bench.uncertainty import OUTSIDE, Difference, log_ratio, paired, values_needed
from diffgen.settings.axes import title_of

# At 30 dB two pictures look the same unless one searches for differences.
GOOD_PSNR = 30.0
# Times closer than this count as equal; then the closer picture wins. Samplers of equal cost
# came out up to 8 % apart on a small model and a quiet machine.
SAME_TIME = 1.1
# dB by which a reference's two solutions must agree better than the target distance:
# its error is then at most half as large, and such a distance is known to 1 dB.
MARGIN = 6.0
RULE = (
    "A change from your default is recommended only where it is shown: it takes less time, by more "
    "than a tenth and by more than the timings scatter (95 % interval of their ratio, after "
    "Welch), or its pictures are closer with 95 % confidence (paired t-test over pictures, which "
    "share seed and prompt; the error is divided by the number of rivals, after Bonferroni). "
    "Otherwise it is: keep yours."
)

References: TypeAlias = Mapping[str, Reference]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The user's requirements, and the key of "yours": the model's own default.

    Without `default` the baseline has the default's sampler but other steps, as those were not
    measured.
    `target_psnr` is the acceptable mean distance to the converged picture in dB; None is 30 dB.
    `budget_seconds` bounds a picture's sampling time. `prompts` turns pictures into seeds.
    """

    baseline: str = ""  # Cell.key
    default: bool = True
    target_psnr: float | None = None
    budget_seconds: float | None = None
    prompts: int = 1

    @property
    def target(self) -> float:
        """`target_psnr` with its default."""
        return GOOD_PSNR if self.target_psnr is None else self.target_psnr

    @property
    def your(self) -> str:
        """What the baseline's name begins with in a sentence."""
        return "your " if self.default else ""


class Measured(NamedTuple):
    """A cell with its distances; `psnr` is capped by the reference's certainty."""

    cell: Cell
    seconds: float
    psnr: float
    floor: float

    def distances(self) -> list[float]:
        """PSNR of each picture, capped by the reference's certainty."""
        assert self.cell.psnr is not None
        return [min(value, self.floor) for value in self.cell.psnr.values]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The comparison of a rival with yours."""

    closer: Difference  # dB, paired
    time: Difference  # log of the ratio
    share: float  # of your time, by the medians

    @classmethod
    def of(cls, rival: Measured, yours: Measured, rivals: int) -> Evidence:
        """`rivals` is the number of cells that the rival was chosen from."""
        assert rival.cell.seconds
        assert yours.cell.seconds
        return cls(
            paired(rival.distances(), yours.distances(), OUTSIDE / max(1, rivals)),
            log_ratio(rival.cell.seconds, yours.cell.seconds),
            rival.seconds / yours.seconds,
        )

    @property
    def saves(self) -> bool:
        """Whether it looks faster, regardless of scatter."""
        return self.share * SAME_TIME <= 1.0

    @property
    def shown(self) -> bool:
        """Whether a gain is significant."""
        return self.closer.rises or (self.saves and self.time.falls)


def pareto_front(cells: Sequence[Cell], references: References) -> list[str]:
    """Keys of the cells that no other dominates, fastest first.

    One dominates another by a closer picture in the same time or less, or the same picture in less.
    """
    points = sorted(_points(cells, references), key=lambda p: p.seconds)
    return [p.cell.key for p in points if not any(_beats(other, p) for other in points)]


def _beats(a: Measured, b: Measured) -> bool:
    closer = a.psnr > b.psnr and a.seconds <= b.seconds * SAME_TIME
    return closer or (a.psnr == b.psnr and a.seconds < b.seconds)


def recommend(
    cells: Sequence[Cell], references: References, question: Question
) -> Recommendation | None:
    """The cheapest cell that is close enough, or the closest if none is; None for no cells.

    The cells are those of one solution, with their references. Yours stays unless the change is
    shown to gain by `RULE`.
    """
    points = _points(cells, references)
    budget = question.budget_seconds
    affordable = [p for p in points if budget is None or p.seconds <= budget]
    if not affordable:
        return _too_expensive(points, budget)
    yours = next((p for p in affordable if p.cell.key == question.baseline), None)
    best = _choose(affordable, question.target)
    if yours is None:
        choice = best
    else:
        rivals = len(affordable) - 1
        shown = [p for p in affordable if p is yours or Evidence.of(p, yours, rivals).shown]
        choice = _choose(shown, question.target)
    keeps = choice is yours
    verdict = _verdict(choice, affordable, references, question)
    sentence = (
        f"{'keep ' + question.your if keeps else ''}{describe(choice.cell)}: PSNR {_measured(choice)} dB to "
        f"the converged picture ({verdict}), {choice.seconds:.2g} s a picture"
    )
    if not keeps:
        return Recommendation(
            cell=choice.cell.key,
            sentence=sentence + _against(choice, points, question),
        )
    more = _more_seeds(best, choice, len(affordable) - 1, question.prompts)
    return Recommendation(
        cell=choice.cell.key,
        sentence=sentence + _not_shown(best, choice, len(affordable) - 1, more),
        more_seeds=more,
    )


def _choose(points: Sequence[Measured], target: float) -> Measured:
    """The cheapest that reaches the target, or the closest if none does."""
    enough = [p for p in points if p.psnr >= target]
    limit = min((p.seconds for p in enough), default=math.inf) * SAME_TIME
    return max((p for p in enough or points if p.seconds <= limit), key=lambda p: p.psnr)


def _verdict(
    choice: Measured, points: Sequence[Measured], references: References, question: Question
) -> str:
    target = f"{question.target:.4g}"
    budget = question.budget_seconds
    within = "" if budget is None else f" within {budget:g} s"
    if choice.psnr >= question.target:
        return f"{target} is enough"
    if any(p.psnr >= question.target for p in points):
        return f"short of {target}"
    sure = max(reference.floor_psnr for reference in references.values())
    if sure < question.target:
        return (
            f"{target} cannot be told: the reference is sure to {sure:.1f} dB only; more "
            "--reference steps or --dtype fp32 may help"
        )
    more = "; more --steps may" if budget is None else ""
    return f"nothing measured reaches {target}{within}{more}"


def _not_shown(best: Measured, yours: Measured, rivals: int, more: int | None) -> str:
    """The best rival's figures, and why they do not justify a change."""
    if best is yours:
        return ""
    evidence = Evidence.of(best, yours, rivals)
    name, share = describe(best.cell), f"{evidence.share:.0%} of the time"
    if evidence.saves:
        scatter = "one timing" if math.isinf(evidence.time.half) else "the scatter of the timings"
        return f"; {name} took {share}, which {scatter} does not show (--repeats takes more)"
    if evidence.closer.mean <= 0.0:
        return ""
    spread = "" if math.isinf(evidence.closer.half) else f" +- {evidence.closer.half:.1f}"
    found = f"; {name} is closer by {evidence.closer.mean:.1f}{spread} dB at {share}, which "
    if more is None:
        return found + "these seeds cannot tell from chance"
    return found + f"about {more} more seed{'s' if more > 1 else ''} would tell from chance"


def _more_seeds(best: Measured, yours: Measured, rivals: int, prompts: int) -> int | None:
    """How many more seeds would show that `best` is closer, if it is."""
    pairs = [a - b for a, b in zip(best.distances(), yours.distances(), strict=False)]
    needed = values_needed(pairs, OUTSIDE / max(1, rivals))
    if best is yours or needed is None or sum(pairs) <= 0.0:
        return None
    return max(1, -(-(needed - len(pairs)) // prompts))


def pick_baseline(
    cells: Sequence[Cell],
    sampler: str,
    schedule: str,
    steps: int,
    defaults: Mapping[str, object] = MappingProxyType({}),
) -> str:
    """The key of the model's own default, or of the same sampler with the most steps; or "".

    `defaults` are those of the axes on which a solution's cells may differ.
    """
    own = [
        cell
        for cell in cells
        if (cell.sampler, cell.schedule) == (sampler, schedule)
        and all(cell.at.get(label, value) == value for label, value in defaults.items())
    ]
    exact = [c for c in own if c.steps == steps]
    chosen = exact or sorted(own, key=lambda c: c.steps)[-1:]
    return chosen[0].key if chosen else ""


def describe(cell: Cell) -> str:
    """`dpmpp_2m + karras, 14 steps`, and further axes within its solution: `, eta 0.5`."""
    solved = dict(cell.solution)
    rest = title_of(pair for pair in cell.at.items() if pair[0] not in solved)
    steps = f"{cell.steps} step{'s' if cell.steps > 1 else ''}"
    return ", ".join(filter(None, [f"{cell.sampler} + {cell.schedule}", steps, rest]))


def _points(cells: Sequence[Cell], references: References) -> list[Measured]:
    points = []
    for cell in cells:
        reference = references.get(cell.limit)
        if cell.status == "ok" and cell.seconds and cell.psnr and reference:
            floor = reference.floor_psnr
            points.append(Measured(cell, cell.seconds.median, min(cell.psnr.mean, floor), floor))
    return points


def _against(choice: Measured, points: Sequence[Measured], question: Question) -> str:
    yours = next((p for p in points if p.cell.key == question.baseline), None)
    if yours is None or yours.cell.key == choice.cell.key:
        return ""
    share = choice.seconds / yours.seconds
    name = f"{question.your}{describe(yours.cell)}"
    return f", {share:.0%} of the time of {name} ({_measured(yours)} dB)"


def _measured(point: Measured) -> str:
    """`31.0 +- 1.2`, as in the table."""
    psnr = point.cell.psnr
    assert psnr is not None
    interval = f" +- {psnr.ci95:.1f}" if len(psnr.values) > 1 else ""
    return f"{psnr.mean:.1f}{interval}"


def _too_expensive(points: Sequence[Measured], budget: float | None) -> Recommendation | None:
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
