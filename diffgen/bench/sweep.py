"""Measure every cell of a grid.

Text is encoded once and each reference solved once, for all cells. Measuring goes in rounds: in
each, every cell draws one picture, in a newly shuffled order. Other load on the machine then
affects all cells alike, and an interrupted sweep has measured every cell, on fewer pictures.
Pictures are drawn one at a time, as `generate` draws them by default.

Cells that need different weights, such as another model's, are measured in stages: each model is
loaded once, and freed before the next is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from PIL import Image

from diffgen.bench import reference as references
from diffgen.bench.drift import find_drifts, time_again
from diffgen.bench.folder import CELLS, REFERENCES, writing_into
from diffgen.bench.grid import PlannedCell, shuffled
from diffgen.bench.journal import Journal
from diffgen.bench.limits import weights_of
from diffgen.bench.measure import (
    FAILURES,
    SILENT,
    CountingDenoiser,
    Listener,
    Scorer,
    evaluate,
    needs_path,
    reason_of,
    sample,
)
from diffgen.bench.pictures import KEPT, picture_name, read_png, write_png
from diffgen.bench.reference import Converged, Limit
from diffgen.bench.runs import Run, has_limit
from diffgen.bench.subject import Subject, Subjects
from diffgen.device import memory_errors
from diffgen.engine.plan import Picture
from diffgen.errors import OutputError
from diffgen.settings.axes import Point, title_of

ADAPTIVE_CALLS = 40  # a guess, only for the time left

_log = logging.getLogger(__name__)


@dataclass
class Sweep:
    """Measures a grid of cells, except those in the journal."""

    subjects: Subjects
    pictures: Sequence[Picture]
    cells: Sequence[PlannedCell]
    journal: Journal
    listener: Listener
    reference_steps: int
    repeats: int
    scorer: Scorer | None = None
    floor: float = 0.0  # dB to which references must agree
    _converged: dict[str, Converged | str] = field(default_factory=dict)  # by the limit's key

    def run(self) -> Iterator[Run]:
        """Measure, yielding each run as soon as it is in the journal.

        A failed cell is a run with its reason, and is not tried again this time. Raises OutputError
        if the folder cannot be written.
        """
        stages = self._stages()
        for cells in stages:
            if self._wanted(cells):
                yield from self._measure(cells)
        for cells in stages:  # a later stage may have found that the machine has changed
            if self._outdated(cells):
                yield from self._check_times(cells)

    def _stages(self) -> list[list[PlannedCell]]:
        """The cells grouped by the weights that draw them."""
        stages: dict[Point, list[PlannedCell]] = {}
        for cell in self.cells:
            stages.setdefault(weights_of(cell.point), []).append(cell)
        return list(stages.values())

    def _measure(self, cells: Sequence[PlannedCell]) -> Iterator[Run]:
        limits = self._limits(cells)
        known = self._converged
        self._converged = {k: known[k] for limit in limits if (k := limit.key) in known}
        for limit in limits:
            if limit.key not in self._converged:
                self._converged[limit.key] = self._converge(limit)
        title = title_of(weights_of(cells[0].point))
        prefix = f"{title}: " if title else ""
        if self._outdated(cells) or any(self._left(n, cells) for n in range(self._rounds)):
            self.listener.begin(f"{prefix}warm-up")
            self._warm_up(cells)
            if self.journal.sitting:
                yield from self._check_times(cells)
        for number in range(self._rounds):
            self.listener.begin(f"{prefix}round {number + 1} of {self._rounds}")
            for cell in self._left(number, cells):
                if not self._failed(cell):
                    run = self._run(cell, number)
                    self.journal.add_run(run)
                    yield run

    def _wanted(self, cells: Sequence[PlannedCell]) -> bool:
        """Whether a stage lacks runs, valid timings or a reference picture."""
        records = map(self.journal.references.get, (limit.key for limit in self._limits(cells)))
        folder = self.journal.folder
        shown = all(record and read_png(folder / record.picture) for record in records)
        left = any(self._left(number, cells) for number in range(self._rounds))
        return left or not shown or self._outdated(cells)

    def _outdated(self, cells: Sequence[PlannedCell]) -> bool:
        keys = {cell.key for cell in cells}
        return any(run.cell in keys for run in self.journal.outdated())

    def calls(self) -> int:
        """The number of network evaluations to come, estimated for adaptive samplers."""
        ahead = [
            each for each in self._limits(self.cells) if each.key not in self.journal.references
        ]
        solving = sum(
            references.calls(self._truth(each), each, self.reference_steps) for each in ahead
        )
        left = [
            (cell, number)
            for number in range(self._rounds)
            for cell in self._left(number, self.cells)
        ]
        return solving + sum(self._calls_of(cell, number) for cell, number in left)

    @property
    def _rounds(self) -> int:
        return max(len(self.pictures), self.repeats)

    def _left(self, number: int, cells: Sequence[PlannedCell]) -> list[PlannedCell]:
        order = shuffled(cells, number)
        return [cell for cell in order if (cell.key, number) not in self.journal.runs]

    def _failed(self, cell: PlannedCell) -> bool:
        return any(run.reason for run in self.journal.runs_of(cell.key))

    def _calls_of(self, cell: PlannedCell, number: int) -> int:
        nfe = cell.plan.nfe or ADAPTIVE_CALLS
        again = number < len(self.pictures) and needs_path(cell)
        return 2 * nfe if again else nfe

    def _limits(self, cells: Sequence[PlannedCell]) -> list[Limit]:
        """The limits that cells have, each once."""
        found = [Limit.of(cell) for cell in cells if has_limit(cell.plan.spec)]
        return list({limit.key: limit for limit in found}.values())

    def _truth(self, limit: Limit) -> Subject:
        return self.subjects.reference(limit.solution)

    def _converge(self, limit: Limit) -> Converged | str:
        """The reference, loaded from the folder or solved; the reason as text if that fails."""
        folder, stem = self.journal.folder, references.file_name(limit.key)
        path = folder / REFERENCES / f"{stem}.safetensors"
        subject = self._truth(limit)
        record = self.journal.references.get(limit.key)
        latents = references.load_latents(path, subject) if record else None
        if record is None or latents is None:
            self.listener.begin(f"reference of {limit.title}" if limit.title else "reference")
            count = partial(CountingDenoiser, listener=self.listener)
            try:
                record, latents = references.converge_until(
                    subject, limit, self.reference_steps, self.floor, count
                )
            except FAILURES as error:
                return f"no reference to compare with: {reason_of(error)}"
            with writing_into(folder):
                references.save_latents(latents, path)
            self.journal.add_reference(limit.key, record)
        converged = references.attach(subject, record, latents)
        with writing_into(folder):
            for number, image in enumerate(converged.images[:KEPT]):
                write_png(image, folder / CELLS / picture_name(stem, number))
        return converged

    def _check_times(self, cells: Sequence[PlannedCell]) -> Iterator[Run]:
        """After an interruption, repeat the timings that no longer hold on this machine."""
        named = {cell.key: cell for cell in cells}
        self.listener.begin("timing again")

        find_drifts(self.journal, named, self._clock)
        yield from time_again(self.journal, named, self.repeats, self._clock)

    def _clock(self, cell: PlannedCell) -> float | None:
        """The seconds of one run without evaluation; None if it fails, which is logged."""
        timed_only = Run(cell=cell.key, round=len(self.pictures))
        try:
            with torch.inference_mode(), memory_errors():
                run, _ = sample(self.subjects.cell(cell.point), cell, timed_only, SILENT)
        except FAILURES as error:
            _log.warning("%s could not be timed again: %s", cell.key, reason_of(error))
            return None
        return run.seconds

    def _warm_up(self, cells: Sequence[PlannedCell]) -> None:
        """One short untimed run: the first run allocates memory and selects algorithms."""
        cell = min(cells, key=lambda cell: cell.plan.nfe or ADAPTIVE_CALLS)
        self._run(cell, 0, warm_up=True)

    def _run(self, cell: PlannedCell, number: int, *, warm_up: bool = False) -> Run:
        run = Run(cell=cell.key, round=number)
        limited = has_limit(cell.plan.spec)
        converged = self._converged.get(Limit.of(cell).key) if limited else None
        if isinstance(converged, str):
            return replace(run, reason=converged)
        listener = SILENT if warm_up else self.listener
        try:
            subject = self.subjects.cell(cell.point)
            with torch.inference_mode(), memory_errors():
                run, latents = sample(subject, cell, run, listener)
                if number >= len(self.pictures):
                    return run
                run, image = evaluate(subject, run, latents, converged, self.scorer)
                return self._keep(cell, run, image)
        except OutputError:
            raise
        except FAILURES as error:
            return replace(run, reason=reason_of(error))

    def _keep(self, cell: PlannedCell, run: Run, image: Image.Image) -> Run:
        """Store the picture of one of the first rounds."""
        if run.round >= KEPT:
            return run
        picture = f"{CELLS}/{picture_name(cell.key, run.round)}"
        folder = self.journal.folder
        with writing_into(folder):
            write_png(image, folder / picture)
        return replace(run, picture=picture)
