"""The folder of a sweep: a journal that survives interruption, and the results in two formats.

    journal.jsonl        one line per finished piece of work, appended at once; see `Journal`
    references/*.safetensors   the converged latents, (pictures, C, h, w)
    cells/*.png          the first picture of each cell and of each reference
    results.json         `Results` field by field (diffgen.bench.results documents them), its
                         version under "schema"; numbers in seconds, bytes and dB
    results.csv          one line per cell, with all its settings

plus the report and plots that are drawn from these. Importing this module does not import torch.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffgen.bench.results import (
    SCHEMA,
    Cell,
    Machine,
    Recommendation,
    Reference,
    Results,
    Statistic,
    Timing,
)
from diffgen.bench.runs import Run
from diffgen.errors import ConfigError, OutputError, UsageError, shown
from diffgen.jsonfile import parse_json

JOURNAL, RESULTS, TABLE = "journal.jsonl", "results.json", "results.csv"
CELLS, REFERENCES = "cells", "references"
STATISTICS = ("latent_rmse", "psnr", "ssim", "clip")


@dataclass
class Journal:
    """What a folder already holds. Its first line is a header: the schema and the conditions.

    Runs may be taken over only where all conditions are equal: everything besides the grid and
    the number of repeats that decides what a run gives.
    """

    path: Path
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict)
    text_seconds: float = 0.0

    @classmethod
    def open(cls, folder: Path, conditions: Mapping[str, Any], *, fresh: bool = False) -> Journal:
        """Begin a journal, or go on with the one in the folder.

        Raises UsageError where the folder cannot be written or holds other people's files, or a
        sweep under other conditions or of another version that `fresh` was not to replace.
        """
        path = folder / JOURNAL
        check_folder(folder)
        conditions = parse_json(
            json.dumps(conditions), JOURNAL
        )  # tuples become lists, as in the file
        try:
            if fresh and path.exists():
                _clear(folder)
            if path.exists():
                return cls._read(path, conditions)
            (folder / CELLS).mkdir(parents=True, exist_ok=True)
            (folder / REFERENCES).mkdir(exist_ok=True)
            _write(path, json.dumps({"schema": SCHEMA, "conditions": conditions}) + "\n")
        except OSError as error:
            raise UsageError(f"cannot write into {folder}: {error.strerror or error}") from error
        return cls(path)

    @classmethod
    def _read(cls, path: Path, conditions: Mapping[str, Any]) -> Journal:
        journal = cls(path)
        first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        header = _parse_line(first)
        if header.get("schema") != SCHEMA:
            raise UsageError(f"{path} was written by another version; --fresh starts over")
        other = header.get("conditions", {})
        changed = [name for name in conditions if conditions[name] != other.get(name)]
        if changed:
            name = changed[0]
            raise UsageError(
                f"{path.parent} holds a sweep with other settings ({name} was {other.get(name)}, "
                f"now {conditions[name]}); --fresh starts over, -o chooses another folder"
            )
        for line in lines:
            journal._take(_parse_line(line))
        if not path.read_bytes().endswith(b"\n"):
            journal._append("")  # close a line that was cut off
        return journal

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "run" in entry:
            run = Run(**entry["run"])
            if not run.reason:  # what failed is tried again
                self.runs[run.cell, run.round] = run
        elif "reference" in entry:
            self.references[entry["name"]] = Reference(**entry["reference"])
        elif "text_seconds" in entry:
            self.text_seconds = entry["text_seconds"]

    def add_run(self, run: Run) -> None:
        """Keep a run, on disk at once."""
        self.runs[run.cell, run.round] = run
        self._append(json.dumps({"run": asdict(run)}))

    def add_reference(self, name: str, reference: Reference) -> None:
        """Keep a reference whose latents have been written, on disk at once."""
        self.references[name] = reference
        self._append(json.dumps({"name": name, "reference": asdict(reference)}))

    def add_text_seconds(self, seconds: float) -> None:
        """Keep how long a prompt took to encode."""
        self.text_seconds = seconds
        self._append(json.dumps({"text_seconds": seconds}))

    def runs_of(self, key: str) -> list[Run]:
        """The runs of one cell so far."""
        return [run for run in self.runs.values() if run.cell == key]

    def _append(self, line: str) -> None:
        with writing_into(self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Turn what the system says about a failing write into OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error


def check_folder(folder: Path) -> None:
    """Raises UsageError where a sweep would be written among other people's files."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; -o takes a folder")
    try:
        foreign = folder.exists() and any(folder.iterdir()) and not (folder / JOURNAL).exists()
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from error
    if foreign:
        raise UsageError(f"{folder} holds other files; -o takes a new or empty folder")


def write_results(results: Results, folder: Path) -> None:
    """results.json and results.csv, each replaced in one go. Raises OutputError."""
    with writing_into(folder):
        _write(folder / RESULTS, json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n")
        _write(folder / TABLE, _csv(results))


def read_results(path: Path) -> Results:
    """Read results.json, or the one in a folder. Raises UsageError where it cannot be used."""
    path = path / RESULTS if path.is_dir() else path
    try:
        data = parse_json(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not the JSON of a sweep: {error}") from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise UsageError(f'{path} has schema {shown(version)}; this diffgen reads "{SCHEMA}"')
    try:
        return _results(data)
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _results(data: dict[str, Any]) -> Results:
    advice = data["recommendation"]
    return Results(
        **data
        | {
            "machine": Machine(**data["machine"]),
            "references": {k: Reference(**v) for k, v in data["references"].items()},
            "cells": tuple(_cell(cell) for cell in data["cells"]),
            "front": tuple(data["front"]),
            "recommendation": advice and Recommendation(**advice),
        }
    )


def _cell(data: dict[str, Any]) -> Cell:
    seconds = data["seconds"]
    timing = seconds and Timing(**seconds | {"repeats": tuple(seconds["repeats"])})
    found = {name: data[name] for name in STATISTICS if data[name]}
    statistics = {k: Statistic(**v | {"values": tuple(v["values"])}) for k, v in found.items()}
    return Cell(**data | {"seconds": timing} | statistics)


def _csv(results: Results) -> str:
    rows = [_row(results, cell) for cell in results.cells]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(results: Results, cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"model": results.model}
    row |= {k: getattr(cell, k) for k in ("sampler", "schedule", "steps", "nfe", "stochastic")}
    row |= {"status": cell.status, "reason": cell.reason}
    for name in STATISTICS:
        value: Statistic | None = getattr(cell, name)
        row |= {name: value and value.mean, f"{name}_ci95": value and value.ci95}
    for name in ("median", "low", "high"):
        row[f"seconds_{name}"] = cell.seconds and getattr(cell.seconds, name)
    row |= {k: getattr(cell, k) for k in ("decode_seconds", "peak_memory", "picture")}
    machine = results.machine
    row |= {"device": machine.device, "dtype": machine.dtype, "threads": machine.threads}
    return row | {f"set_{name}": value for name, value in cell.settings.items()}


def _clear(folder: Path) -> None:
    """Remove what a sweep wrote, the journal last; other files stay."""
    for name in (CELLS, REFERENCES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (RESULTS, TABLE, JOURNAL):
        (folder / name).unlink(missing_ok=True)


def _parse_line(line: str) -> dict[str, Any]:
    """One line of a journal; what was cut off by a crash counts as not written."""
    try:
        entry = parse_json(line, JOURNAL)
    except ConfigError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _write(path: Path, text: str) -> None:
    """Replace a file in one go, readable as the user's umask says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
