"""The journal of a sweep: what has been measured so far, kept through an interruption.

journal.jsonl has a line for each finished piece of work, appended and synchronized at once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from diffgen.bench.folder import (
    CELLS,
    JOURNAL,
    REFERENCES,
    check_folder,
    clear,
    write_text,
    writing_into,
)
from diffgen.bench.pictures import read_png
from diffgen.bench.results import SCHEMA, Reference
from diffgen.bench.runs import Drift, Run
from diffgen.errors import ConfigError, UsageError
from diffgen.files import remove_parts
from diffgen.jsonfile import parse_json

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass
class Journal:
    """The content of a folder. The first line is a header: the schema and the conditions.

    The conditions are everything that decides the result of a run, except the grid and the number
    of repeats; stored runs are reused only under equal conditions. `values` identify the files
    behind the values of axes, such as those of a model; later sittings may add values. `sitting`
    numbers the processes that have measured, from 0: the machine may change between two.
    """

    path: Path
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict)
    drifts: list[Drift] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)  # fingerprints of files, by value
    text_seconds: float = 0.0
    sitting: int = 0

    @classmethod
    def open(
        cls,
        folder: Path,
        conditions: Mapping[str, Any],
        *,
        fresh: bool = False,
        values: Mapping[str, str] = MappingProxyType({}),
    ) -> Journal:
        """Create the journal, or continue the one in the folder; damaged entries are dropped.

        Raises UsageError if the folder cannot be written, holds other files, or a sweep under other
        conditions or of another version that `fresh` does not replace.
        """
        path = folder / JOURNAL
        check_folder(folder)
        # Tuples become lists, as in the file.
        conditions = parse_json(json.dumps(conditions), JOURNAL)
        try:
            if fresh and path.exists():
                clear(folder)
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                journal = cls._read(path, conditions)
            else:
                journal = cls(path)
                write_text(path, json.dumps({"schema": SCHEMA, "conditions": conditions}) + "\n")
            journal._add_values(values)
            for name in (CELLS, REFERENCES):
                (folder / name).mkdir(exist_ok=True)
                remove_parts(folder / name)  # left by a killed sweep
        except OSError as error:
            raise UsageError(f"cannot write into {folder}: {error.strerror or error}") from error
        return journal

    @classmethod
    def _read(cls, path: Path, conditions: Mapping[str, Any]) -> Journal:
        journal = cls(path)
        data = path.read_bytes()
        first, *lines = data.split(b"\n")
        header = _parse_line(first)
        if header is None:
            raise UsageError(f"{path}: line 1 is damaged; --fresh starts over")
        _check_header(header, path, conditions)
        damaged = [n for n, line in enumerate(lines, 2) if not journal._take(line)]
        if damaged and damaged[-1] == len(lines) + 1:
            damaged.pop()  # the last line is cut off in a killed sweep
        if damaged:
            numbers = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            _log.warning("%s: damaged, line %s; what they held is measured again", path, numbers)
        if not data.endswith(b"\n"):
            journal._append("")
        journal._forget_damaged_pictures()
        journal.sitting = 1 + max((run.sitting for run in journal.runs.values()), default=-1)
        return journal

    def _take(self, line: bytes) -> bool:
        """Store the entry of a line; False if it is damaged. The empty line ends a cut-off one."""
        entry = _parse_line(line)
        if entry is None:
            return not line
        if run := _made(Run, entry.get("run")):
            if not run.reason:  # failed runs are tried again
                self.runs[run.cell, run.round] = run
        elif reference := _made(Reference, entry.get("reference")):
            self.references[str(entry.get("name"))] = reference
        elif drift := _made(Drift, entry.get("drift")):
            self.drifts.append(drift)
        elif isinstance(values := entry.get("values"), dict):
            self.values |= {name: str(value) for name, value in values.items()}
        elif isinstance(seconds := entry.get("text_seconds"), float):
            self.text_seconds = seconds
        else:
            return False
        return True

    def _forget_damaged_pictures(self) -> None:
        """Drop runs whose picture is unreadable, so that they are repeated."""
        for key, run in list(self.runs.items()):
            if run.picture and read_png(self.folder / run.picture) is None:
                _log.warning("%s is missing or damaged; it is made again", run.picture)
                del self.runs[key]

    def _add_values(self, values: Mapping[str, str]) -> None:
        _refuse_changed(
            self.values, {k: v for k, v in values.items() if k in self.values}, self.path
        )
        if new := {name: value for name, value in values.items() if name not in self.values}:
            self.values |= new
            self._append(json.dumps({"values": new}))

    def add_run(self, run: Run) -> None:
        """Store a run, on disk at once."""
        run = replace(run, sitting=self.sitting)
        self.runs[run.cell, run.round] = run
        self._append(json.dumps({"run": asdict(run)}))

    def add_reference(self, name: str, reference: Reference) -> None:
        """Store a reference whose latents have been written, on disk at once."""
        self.references[name] = reference
        self._append(json.dumps({"name": name, "reference": asdict(reference)}))

    def add_drift(self, drift: Drift) -> None:
        """Store that the machine has changed: timings of a sitting are outdated."""
        self.drifts.append(drift)
        self._append(json.dumps({"drift": asdict(drift)}))

    def outdated(self) -> list[Run]:
        """The runs with outdated timings."""
        gone = {drift.sitting for drift in self.drifts}
        return [r for r in self.runs.values() if r.sitting in gone and r.seconds is not None]

    def add_text_seconds(self, seconds: float) -> None:
        """Store how long a prompt took to encode."""
        self.text_seconds = seconds
        self._append(json.dumps({"text_seconds": seconds}))

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return self.path.parent

    def runs_of(self, key: str) -> list[Run]:
        """The runs of one cell so far."""
        return [run for run in self.runs.values() if run.cell == key]

    def _append(self, line: str) -> None:
        with writing_into(self.folder), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def _made(kind: type[T], value: object) -> T | None:
    """The content of a journal line, None if it is invalid."""
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(value, dict):
        return None
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _check_header(header: Mapping[str, Any], path: Path, conditions: Mapping[str, Any]) -> None:
    if header.get("schema") != SCHEMA:
        raise UsageError(f"{path} was written by another version; --fresh starts over")
    other = header.get("conditions")
    _refuse_changed(other if isinstance(other, dict) else {}, conditions, path)


def _refuse_changed(other: Mapping[str, Any], conditions: Mapping[str, Any], path: Path) -> None:
    changed = [name for name in conditions if conditions[name] != other.get(name)]
    if changed:
        name = changed[0]
        raise UsageError(
            f"{path.parent} holds a sweep with other settings ({name} was {other.get(name)}, "
            f"now {conditions[name]}); --fresh starts over, -o chooses another folder"
        )


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        entry = parse_json(line.decode("utf-8"), JOURNAL)
    except (ConfigError, UnicodeDecodeError):
        return None
    return entry if isinstance(entry, dict) else None
