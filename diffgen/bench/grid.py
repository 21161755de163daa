"""The grid of a sweep: samplers x schedules x steps, parsed from the command line's lists.

Also x the values of each axis, a setting given several values (`settings.axes`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.samplers.spec import SamplerSpec
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.errors import UsageError, did_you_mean
from diffgen.settings.axes import Point, suffix_of
from diffgen.settings.grammar import parse_integers, parse_words
from diffgen.settings.names import (
    SAMPLER_ALIASES,
    SAMPLER_NAMES,
    SPACING_ALIASES,
    SPACING_NAMES,
    parse_sampler,
    parse_spacing,
)
from diffgen.settings.sampling import Sampling
from diffgen.types import SamplerName, SpacingName

DEFAULT_SCHEDULE = "default"
GROUPS: dict[str, Callable[[SamplerSpec], bool]] = {
    "all": lambda spec: True,
    "deterministic": lambda spec: not spec.stochastic,
    "stochastic": lambda spec: spec.stochastic,
}

# A sampler, and the schedule where the name carried one ("DPM++ 2M Karras").
SamplerChoice = tuple[SamplerName, SpacingName | None]
PlanMaker = Callable[[Sampling, Point], SamplingPlan]


@dataclass(frozen=True, slots=True)
class Grid:
    """The axes of a sweep.

    None among the schedules is each sampler's default on the model. With `by_calls` the numbers of
    `steps` are budgets of network evaluations: each sampler takes the most steps that fit, so that
    Heun is compared with Euler at equal cost. `points` are the values of the further axes.
    """

    samplers: tuple[SamplerChoice, ...]
    schedules: tuple[SpacingName | None, ...]
    steps: tuple[int, ...]
    by_calls: bool = False
    points: tuple[Point, ...] = ((),)

    @classmethod
    def parse(
        cls,
        samplers: str,
        schedules: str,
        steps: str,
        *,
        by_calls: bool = False,
        points: tuple[Point, ...] = ((),),
    ) -> Grid:
        """Parse the three lists: names, aliases, globs and groups; names; numbers and ranges.

        Raises UsageError for empty lists and numbers below 1, and for unknown names, all of them at
        once.
        """
        option = "--nfe" if by_calls else "--steps"
        return cls(
            parse_samplers(samplers),
            parse_schedules(schedules),
            tuple(sorted(parse_integers(option, steps, lowest=1))),
            by_calls,
            points,
        )


@dataclass(frozen=True)
class PlannedCell:
    """One cell to measure, resolved and checked; `point` has its values on the further axes."""

    plan: SamplingPlan
    steps: int
    point: Point = ()

    @cached_property
    def key(self) -> str:
        """`Cell.key` of the finished cell."""
        return f"{self.plan.spec.name}-{self.plan.schedule}-{self.steps}{suffix_of(self.point)}"

    @property
    def stochastic(self) -> bool:
        """Whether the run draws noise: a sampler with eta does if that is above 0."""
        options = self.plan.options
        return options["eta"] > 0.0 if "eta" in options else self.plan.spec.stochastic


def plan_cells(grid: Grid, make_plan: PlanMaker) -> list[PlannedCell]:
    """The cells of a grid, each once: two schedules may be the same for a sampler.

    A sampler that chooses its own steps gets one cell per schedule. `make_plan` fills in the
    model's defaults; the UsageError it raises for impossible steps passes through.
    """
    cells: dict[str, PlannedCell] = {}
    for sampler, schedule, steps in _combinations(grid):
        for point in dict.fromkeys(point_of(point, sampler) for point in grid.points):
            asked = Sampling(sampler=sampler, schedule=schedule, steps=steps)
            cell = plan_cell(asked, point, make_plan, by_calls=grid.by_calls)
            cells.setdefault(cell.key, cell)
    return list(cells.values())


def point_of(point: Point, sampler: SamplerName) -> Point:
    """A point for a sampler: an axis of what it does not have is none."""
    lacking = () if "eta" in SAMPLERS[sampler].options else ("eta",)
    return tuple(pair for pair in point if pair[0] not in lacking)


def plan_cell(
    asked: Sampling, point: Point, make_plan: PlanMaker, *, by_calls: bool = False
) -> PlannedCell:
    """One cell at a point; with `by_calls` the steps are network evaluations."""
    asked = replace(asked, eta=dict(point).get("eta"))
    plan = make_plan(asked, point)
    if by_calls:
        plan = _fit_calls(plan, asked, lambda fewer: make_plan(fewer, point))
    return PlannedCell(plan, plan.steps_run, point)


def shuffled(cells: Sequence[PlannedCell], round_number: int) -> list[PlannedCell]:
    """The cells in a different order for each round, the same on every machine.

    So a machine that slows down while it warms up favours no sampler.
    """
    order = list(cells)
    random.Random(f"sample-steps {round_number}").shuffle(order)
    return order


def parse_samplers(text: str) -> tuple[SamplerChoice, ...]:
    """Parse `ddim, dpmpp*, DPM++ 2M Karras, deterministic`, each once. Raises UsageError."""
    found: dict[SamplerChoice, None] = {}
    unknown = []
    for word in parse_words("--samplers", text):
        choices = _matching(word)
        found.update(dict.fromkeys(choices))
        if not choices:
            unknown.append(word)
    _refuse("samplers", unknown, [*SAMPLER_NAMES, *SAMPLER_ALIASES, *GROUPS])
    return tuple(found)


def parse_schedules(text: str) -> tuple[SpacingName | None, ...]:
    """Parse `default, karras, ays`, None for the default. Raises UsageError."""
    found: dict[SpacingName | None, None] = {}
    unknown = []
    for word in parse_words("--schedules", text):
        try:
            found[None if word.lower() == DEFAULT_SCHEDULE else parse_spacing(word)] = None
        except UsageError:
            unknown.append(word)
    _refuse("schedules", unknown, [DEFAULT_SCHEDULE, *SPACING_NAMES, *SPACING_ALIASES])
    return tuple(found)


def _combinations(grid: Grid) -> Iterator[tuple[SamplerName, SpacingName | None, int]]:
    for sampler, implied in grid.samplers:
        fixed = SAMPLERS[sampler].nfe is not None
        for schedule in [implied] if implied else grid.schedules:
            for steps in grid.steps if fixed else grid.steps[-1:]:
                yield sampler, schedule, steps


def _fit_calls(
    plan: SamplingPlan, asked: Sampling, make_plan: Callable[[Sampling], SamplingPlan]
) -> SamplingPlan:
    """The plan with the most steps whose network evaluations stay within those asked for."""
    calls = steps = asked.steps or 1
    while steps > 1 and plan.nfe is not None and plan.nfe > calls:
        steps -= 1
        plan = make_plan(replace(asked, schedule=plan.schedule, steps=steps))
    return plan


def _matching(word: str) -> list[SamplerChoice]:
    key = word.lower().replace("++", "pp")
    if group := GROUPS.get(key):
        return [(name, None) for name, spec in SAMPLERS.items() if group(spec)]
    if set(key) & set("*?["):
        return [(name, None) for name in SAMPLER_NAMES if fnmatchcase(name, key)]
    try:
        return [parse_sampler(word)]
    except UsageError:
        return []


def _refuse(what: str, unknown: Sequence[str], known: Iterable[str]) -> None:
    if not unknown:
        return
    names = list(known)
    listed = ", ".join(f'"{word}"{_hint(word, names)}' for word in unknown)
    raise UsageError(f"unknown {what}: {listed}; `diffgen samplers` lists them all")


def _hint(word: str, known: Sequence[str]) -> str:
    hint = did_you_mean(word.replace(" ", "_"), known).lstrip(". ")
    return f" ({hint[0].lower()}{hint[1:]})" if hint else ""
