"""results.json and results.csv: the results of a sweep in its folder, written and read back.

results.json is `Results` field by field (diffgen.bench.results documents them), its version under
"schema"; numbers in seconds, bytes and dB. results.csv has a line per cell, with all its settings.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffgen.bench.folder import RESULTS, TABLE, write_text, writing_into
from diffgen.bench.results import READABLE, SCHEMA, Cell, Results, Statistic
from diffgen.errors import ConfigError, UsageError, shown
from diffgen.jsonfile import parse_json

# Messages for pydantic's error types; other values are just invalid.
FAULTS = {
    "missing": "is missing",
    "missing_argument": "is missing",
    "unexpected_keyword_argument": "is not a field of this version",
    "extra_forbidden": "is not a field of this version",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "string_type": "should be a string",
    "bool_type": "should be true or false",
    "tuple_type": "should be a list",
    "dict_type": "should be an object",
    "mapping_type": "should be an object",
    "dataclass_type": "should be an object",
    "literal_error": "is none of ok, no_limit, failed",
}
STATISTICS = ("latent_rmse", "psnr", "ssim", "clip")


def write_results(results: Results, folder: Path) -> None:
    """Write results.json and results.csv atomically. Raises OutputError."""
    with writing_into(folder):
        write_text(
            folder / RESULTS, json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n"
        )
        write_text(folder / TABLE, _csv(results))


def read_results(path: Path) -> Results:
    """Read results.json, or the one in a folder. Raises UsageError if it is unusable."""
    path = path / RESULTS if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
        data = parse_json(text, str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not the JSON of a sweep: {error}") from error
    version = data.get("schema") if isinstance(data, dict) else None
    if version not in READABLE:
        raise UsageError(f'{path} has schema {shown(version)}; this diffgen reads "{SCHEMA}"')
    from pydantic import TypeAdapter, ValidationError

    try:
        results = TypeAdapter(Results).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        fault = FAULTS.get(first["type"], f"cannot be {shown(first['input'])}")
        raise UsageError(f"{path} is damaged: {_key(first['loc'])} {fault}") from error
    if fault := find_nonsense(results):
        raise UsageError(f"{path} is damaged: {fault}")
    return results


def find_nonsense(results: Results) -> str:
    """The first impossible value, with its key; empty if there is none."""
    for number, cell in enumerate(results.cells):
        where = f"cells[{number}]"
        if cell.steps < 1 or cell.nfe < 0:
            return f"{where} has {cell.steps} steps and {cell.nfe} evaluations"
        times = cell.seconds
        if times and not (times.repeats and min(times.median, times.low, *times.repeats) > 0.0):
            return f"{where}.seconds should be numbers above 0"
        for name in STATISTICS:
            statistic: Statistic | None = getattr(cell, name)
            if statistic and not (statistic.values and statistic.ci95 >= 0.0):
                return f"{where}.{name} has no values, or an interval below 0"
    return ""


def _key(path: Sequence[int | str]) -> str:
    """`cells[3].psnr.mean`."""
    words = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(words).removeprefix(".")


def _csv(results: Results) -> str:
    rows = [_row(results, cell) for cell in results.cells]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(results: Results, cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {"model": cell.at.get("model", results.model)}
    row |= {k: getattr(cell, k) for k in ("sampler", "schedule", "steps", "nfe", "stochastic")}
    row |= {"status": cell.status, "reason": cell.reason}
    for name in STATISTICS:
        value: Statistic | None = getattr(cell, name)
        known = value and len(value.values) > 1  # the spread of a single value is not 0
        row |= {name: value and value.mean, f"{name}_ci95": value.ci95 if value and known else None}
    for name in ("median", "low", "high"):
        row[f"seconds_{name}"] = cell.seconds and getattr(cell.seconds, name)
    row |= {k: getattr(cell, k) for k in ("decode_seconds", "peak_memory", "picture")}
    machine = results.machine
    row |= {"device": machine.device, "threads": machine.threads}
    row |= {"dtype": cell.at.get("dtype", machine.dtype)}
    return row | {f"set_{name}": value for name, value in cell.settings.items()}
