"""Two sweeps side by side: what became slower, faster, closer or farther.

Importing this module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffgen.bench.results import Cell, Reference, Results
from diffgen.errors import UsageError

# What decides a cell's distance; where these differ there is nothing to compare.
SAME = ("prompts", "negative", "seeds", "guidance", "width", "height")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much slower (a fraction) and how much worse (in dB) a cell may get."""

    slower: float = 0.10
    worse: float = 0.5

    @classmethod
    def parse(cls, slower: str, worse: str) -> Limits:
        """Percent (`10%` or `10`) and decibels (`0.5dB` or `0.5`). Raises UsageError."""
        percent = _number("--max-slower", slower, "%")
        return cls(percent / 100, _number("--max-worse", worse, "dB"))


@dataclass(frozen=True, slots=True)
class Change:
    """One cell in both sweeps; None where the two cannot be compared."""

    key: str
    time_ratio: float | None  # new / old
    psnr_difference: float | None  # new - old, in dB
    problem: str = ""  # why it fails the gate


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes, and remarks on what was left out."""

    changes: Sequence[Change]
    notes: Sequence[str]

    @property
    def failed(self) -> bool:
        """Whether any cell is slower or worse than allowed."""
        return any(change.problem for change in self.changes)

    def lines(self) -> list[str]:
        """The comparison as text, one cell a line."""
        rows = [_line(change) for change in self.changes]
        count = sum(bool(change.problem) for change in self.changes)
        verdict = (
            f"{count} of {len(rows)} cells got slower or worse"
            if count
            else (f"none of {len(rows)} cells got slower or worse")
        )
        return [*rows, *(f"note: {note}" for note in self.notes), verdict]


def compare(old: Results, new: Results, limits: Limits) -> Comparison:
    """Compare the cells that both sweeps have.

    Times are compared only where device, number format and thread count are the same. A PSNR
    above the floor of the references says nothing, so the lower of the two is the highest that
    counts. Raises UsageError where nothing can be compared.
    """
    check_comparable(old, new.settings, [cell.key for cell in new.cells])
    before = {cell.key: cell for cell in old.cells}
    unlike = _unlike_machines(old, new)
    changes = [
        _change(before[cell.key], cell, _floor(old, new, cell), limits, timed=not unlike)
        for cell in new.cells
        if cell.key in before
    ]
    return Comparison(changes, [*unlike, *_other_model(old, new), *_missing(before, new)])


def check_comparable(old: Results, settings: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raises UsageError where a sweep with these settings and cells cannot be compared."""
    for name in SAME:
        if _plain(old.settings.get(name)) != _plain(settings.get(name)):
            raise UsageError(
                f"the sweep to compare with drew other pictures: {name} was "
                f"{old.settings.get(name)}, now {settings.get(name)}"
            )
    if not {cell.key for cell in old.cells} & set(keys):
        raise UsageError("the sweep to compare with has no cell in common with this one")


def _change(old: Cell, new: Cell, floor: float, limits: Limits, *, timed: bool) -> Change:
    ratio = difference = None
    problems = []
    if timed and old.seconds and new.seconds:
        ratio = new.seconds.median / old.seconds.median
        if ratio > 1.0 + limits.slower:
            problems.append("slower")
    if old.psnr and new.psnr:
        difference = min(new.psnr.mean, floor) - min(old.psnr.mean, floor)
        if difference < -limits.worse:
            problems.append("worse")
    if new.status == "failed" and old.status != "failed":
        problems.append(f"fails now: {new.reason}")
    return Change(new.key, ratio, difference, ", ".join(problems))


def _floor(old: Results, new: Results, cell: Cell) -> float:
    name = cell.sampler if cell.stochastic else ""
    found: list[Reference] = [r.references[name] for r in (old, new) if name in r.references]
    return min((reference.floor_psnr for reference in found), default=float("inf"))


def _unlike_machines(old: Results, new: Results) -> list[str]:
    names = ("device", "dtype", "threads")
    unlike = [n for n in names if getattr(old.machine, n) != getattr(new.machine, n)]
    if not unlike:
        return []
    was = ", ".join(f"{n} was {getattr(old.machine, n)}" for n in unlike)
    now = ", ".join(f"{getattr(new.machine, n)}" for n in unlike)
    return [f"times are not compared: {was}, now {now}"]


def _other_model(old: Results, new: Results) -> list[str]:
    same = old.model == new.model
    return [] if same else [f"the model was {old.model}, now {new.model}"]


def _missing(before: Mapping[str, Cell], new: Results) -> list[str]:
    gone = sorted(before.keys() - {cell.key for cell in new.cells})
    return [f"not measured this time: {', '.join(gone)}"] if gone else []


def _line(change: Change) -> str:
    parts = []
    if change.time_ratio is not None:
        parts.append(f"time {change.time_ratio - 1.0:+.1%}")
    if change.psnr_difference is not None:
        parts.append(f"PSNR {change.psnr_difference:+.2f} dB")
    mark = f"  <- {change.problem}" if change.problem else ""
    return f"{change.key}: {', '.join(parts) or 'nothing to compare'}{mark}"


def _number(option: str, text: str, unit: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(\S*)", text.strip())
    if not match or match[2].lower() not in ("", unit.lower()):
        raise UsageError(f'{option} takes a number such as 10 or 10{unit}, got "{text}"')
    return float(match[1])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
