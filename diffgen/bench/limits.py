"""The limit of each cell: the picture that it converges to with more steps.

Settings that change the equation, such as the guidance scale, give each value its own limit: a
cell's distance then measures the error of its sampler, never the effect of the setting.
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
    """The part of a point that determines the equation."""
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

    All deterministic cells of one solution share one. A stochastic cell's is its sampler's own, one
    for each eta.
    """
    own, parts = _parts(sampler, pairs, stochastic=stochastic)
    return f"{own}{suffix_of(parts)}".removeprefix("-")


def limit_title(sampler: str, pairs: Pairs, *, stochastic: bool) -> str:
    """The limit's title for readers."""
    own, parts = _parts(sampler, pairs, stochastic=stochastic)
    return ", ".join(filter(None, [own, title_of(parts)]))


def _parts(sampler: str, pairs: Pairs, *, stochastic: bool) -> tuple[str, Point]:
    point = tuple(pairs)
    eta = tuple(pair for pair in point if pair[0] == "eta") if stochastic else ()
    return (sampler if stochastic else ""), (*eta, *solution_of(point))
