"""Compare two sweeps: which cells became slower, faster, closer or farther.

A cell fails if a change exceeds both the allowance and the recorded spread of both sides: the 95 %
interval of the ratio of times (after Welch) lies above 1, or that of the PSNR differences, paired
by picture, below 0. A single timing or picture has no spread; then the allowance alone decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffgen.bench.results import Cell, Reference, Results
from diffgen.bench.uncertainty import Difference, log_ratio, paired
from diffgen.errors import UsageError
from diffgen.settings.sampling import Guidance
from diffgen.settings.setting import rows
from diffgen.settings.sweep import AXES

# Settings that determine a cell's distance; sweeps must agree in them.
SAME = (
    *("prompts", "negative", "seeds", "guidance", "width", "height"),
    *(name for name in rows(Guidance) if name != "guidance_scale"),
    *("eta", "loras", "embeddings"),
)
SEVERAL = "several"  # for an axis: its cells have other keys for other values


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
    """One cell in both sweeps; None for differences that cannot be computed."""

    key: str
    time: Difference | None  # log of new / old
    psnr: Difference | None  # new - old, in dB
    problem: str = ""  # why it fails, if it does


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes, and remarks on what was not compared."""

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

    Times are compared only for equal device, number format and thread count. A PSNR above the floor
    of the references is meaningless, so values are capped by the lower of the two. Raises
    UsageError if nothing can be compared.
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
    """Raises UsageError if a sweep with these settings and cells cannot be compared."""
    for name in SAME:
        was, now = (varied(name, given.get(name)) for given in (old.settings, settings))
        if _plain(was) != _plain(now):
            raise UsageError(
                f"the sweep to compare with drew other pictures: {name} was {was}, now {now}"
            )
    if not {cell.key for cell in old.cells} & set(keys):
        raise UsageError("the sweep to compare with has no cell in common with this one")


def varied(name: str, value: Any) -> Any:
    """A setting of a sweep, `SEVERAL` where it is an axis."""
    if name in ("loras", "embeddings") and not value:
        return None  # which older results say of them
    of_axis = (name == "guidance" or name in AXES) and isinstance(value, list | tuple)
    one_stack = name == "loras" and all(isinstance(each, str) for each in value or ())
    return SEVERAL if of_axis and not one_stack else value


def _change(old: Cell, new: Cell, floor: float, limits: Limits, *, timed: bool) -> Change:
    time = psnr = None
    problems = []
    if timed and old.seconds and new.seconds:
        time = log_ratio(new.seconds, old.seconds)
        if _beyond(time, math.log1p(limits.slower)):
            problems.append("slower")
    if old.psnr and new.psnr:
        after, before = ([min(v, floor) for v in s.values] for s in (new.psnr, old.psnr))
        psnr = paired(after, before)
        if _beyond(Difference(-psnr.mean, psnr.half), limits.worse):
            problems.append("worse")
    if new.status == "failed" and old.status != "failed":
        problems.append(f"fails now: {new.reason}")
    return Change(new.key, time, psnr, ", ".join(problems))


def _beyond(change: Difference, allowed: float) -> bool:
    return change.mean > allowed and (change.rises or math.isinf(change.half))


def _floor(old: Results, new: Results, cell: Cell) -> float:
    name = cell.limit
    found: list[Reference] = [r.references[name] for r in (old, new) if name in r.references]
    return min((reference.floor_psnr for reference in found), default=float("inf"))


def _unlike_machines(old: Results, new: Results) -> list[str]:
    formats = [varied("dtype", results.settings.get("dtype")) for results in (old, new)]
    names = ["device", "threads", *(["dtype"] if formats != [SEVERAL] * 2 else [])]
    unlike = [n for n in names if getattr(old.machine, n) != getattr(new.machine, n)]
    if not unlike:
        return []
    was = ", ".join(f"{n} was {getattr(old.machine, n)}" for n in unlike)
    now = ", ".join(f"{getattr(new.machine, n)}" for n in unlike)
    return [f"times are not compared: {was}, now {now}"]


def _other_model(old: Results, new: Results) -> list[str]:
    axis = [varied("model", results.settings.get("model")) for results in (old, new)]
    same = old.model == new.model or axis == [SEVERAL] * 2
    return [] if same else [f"the model was {old.model}, now {new.model}"]


def _missing(before: Mapping[str, Cell], new: Results) -> list[str]:
    gone = sorted(before.keys() - {cell.key for cell in new.cells})
    return [f"not measured this time: {', '.join(gone)}"] if gone else []


def _line(change: Change) -> str:
    parts = []
    if change.time is not None:
        parts.append(f"time {_percent(change.time.mean)}{_interval(change.time, _percent)}")
    if change.psnr is not None:
        parts.append(f"PSNR {_decibels(change.psnr.mean)} dB{_interval(change.psnr, _decibels)}")
    mark = f"  <- {change.problem}" if change.problem else ""
    return f"{change.key}: {', '.join(parts) or 'nothing to compare'}{mark}"


def _interval(change: Difference, text: Callable[[float], str]) -> str:
    """` (-1.0% to +3.2%)`, empty if unknown or of no width."""
    if change.half == 0.0 or math.isinf(change.half):
        return ""
    return f" ({text(change.mean - change.half)} to {text(change.mean + change.half)})"


def _percent(log: float) -> str:
    return f"{math.expm1(min(log, 50.0)):+.1%}"  # larger ones are unreadable


def _decibels(value: float) -> str:
    return f"{value:+.2f}"


def _number(option: str, text: str, unit: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(\S*)", text.strip())
    if not match or match[2].lower() not in ("", unit.lower()):
        raise UsageError(f'{option} takes a number such as 10 or 10{unit}, got "{text}"')
    return float(match[1])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
