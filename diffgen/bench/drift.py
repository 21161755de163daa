"""Detect whether the machine has changed since an interrupted sweep.

One table must not mix the times of an idle and of a busy machine. A few cells of each earlier
sitting are timed again; if the machine has changed, the times of that sitting are measured again.
Pictures and distances do not depend on the machine, and stay.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median

from diffgen.bench.grid import PlannedCell, shuffled
from diffgen.bench.journal import Journal
from diffgen.bench.runs import Drift, Run

CONTROLS = 3  # cells of each sitting
TRIES = 2
DRIFTED = 1.15  # beyond the hourly variation of timings on one machine
Clock = Callable[[PlannedCell], float | None]  # the seconds of one run; None if it fails

_log = logging.getLogger(__name__)


def find_drifts(journal: Journal, cells: Mapping[str, PlannedCell], clock: Clock) -> None:
    """Time a few cells of each earlier sitting again, and record drifts in the journal."""
    known = {drift.sitting for drift in journal.drifts}
    timed = {run.sitting for run in journal.runs.values() if run.seconds and run.cell in cells}
    for sitting in sorted(timed - known - {journal.sitting}):
        ratios = _ratios(journal, sitting, cells, clock)
        same_side = ratios and (all(r > 1.0 for r in ratios) or all(r < 1.0 for r in ratios))
        if same_side and abs(math.log(median(ratios))) > math.log(DRIFTED):
            drift = Drift(sitting, median(ratios))
            journal.add_drift(drift)
            _log.warning("%s", drift.sentence())


def time_again(
    journal: Journal, cells: Mapping[str, PlannedCell], repeats: int, clock: Clock
) -> Iterator[Run]:
    """Replace outdated times, `repeats` of each cell, round by round.

    The remaining outdated ones are dropped.
    """
    runs = {(run.cell, run.round): run for run in journal.outdated() if run.cell in cells}
    for number in sorted({number for _, number in runs}):
        for cell in shuffled(
            [cell for key, cell in cells.items() if (key, number) in runs], number
        ):
            seconds = clock(cell) if number < repeats else None
            run = replace(runs[cell.key, number], seconds=seconds)
            journal.add_run(run)
            yield run


def _ratios(
    journal: Journal, sitting: int, cells: Mapping[str, PlannedCell], clock: Clock
) -> list[float]:
    """Time now / time then, of a cheap, a medium and an expensive cell."""
    then: dict[str, list[float]] = {}
    for run in journal.runs.values():
        if run.sitting == sitting and run.seconds and run.cell in cells:
            then.setdefault(run.cell, []).append(run.seconds)
    keys = sorted(then, key=lambda key: (median(then[key]), key))
    chosen = dict.fromkeys(keys[i * (len(keys) - 1) // (CONTROLS - 1)] for i in range(CONTROLS))
    now = [(key, clock(cells[key])) for key in chosen for _ in range(TRIES)]
    return [seconds / median(then[key]) for key, seconds in now if seconds is not None]
