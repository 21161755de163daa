"""What tells the limits of cells apart, which their pictures come nearer to with more steps.

Settings that change the equation, as the guidance scale does, give each value a limit of its own:
what a cell's distance measures is then the error of its sampler, never what the setting does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from diffgen.settings.axes import Point, suffix_of, title_of
from diffgen.settings.sweep import BY_LABEL

if TYPE_CHECKING:
    from diffgen.bench.results import Cell

Pairs = Iterable[tuple[str, object]]  # a point, or the items of `Cell.at`


def solution_of(pairs: Pairs) -> Point:
    """The part of a point that decides which equation is solved."""
    return tuple((label, value) for label, value in pairs if BY_LABEL[label].solves)


def weights_of(pairs: Pairs) -> Point:
    """The part of a point that decides which weights are in memory."""
    return tuple((label, value) for label, value in pairs if BY_LABEL[label].loads)


def by_solution(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells that solve the same equation, in the order of the sweep."""
    groups: dict[Point, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.solution, []).append(cell)
    return list(groups.values())


def limit_key(sampler: str, pairs: Pairs, *, stochastic: bool) -> str:
    """The key of a cell's reference in `Results.references`.

    All deterministic cells of one solution share theirs. A stochastic one's is its sampler's own,
    and another for each eta.
    """
    own, parts = _parts(sampler, pairs, stochastic=stochastic)
    return f"{own}{suffix_of(parts)}".removeprefix("-")


def limit_title(sampler: str, pairs: Pairs, *, stochastic: bool) -> str:
    """The same for a reader."""
    own, parts = _parts(sampler, pairs, stochastic=stochastic)
    return ", ".join(filter(None, [own, title_of(parts)]))


def _parts(sampler: str, pairs: Pairs, *, stochastic: bool) -> tuple[str, Point]:
    point = tuple(pairs)
    eta = tuple(pair for pair in point if pair[0] == "eta") if stochastic else ()
    return (sampler if stochastic else ""), (*eta, *solution_of(point))
