"""Faults while samplers are measured."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from common import expect, killed, lines_of, run, whole_pictures

SWEEP = (
    *("sample-steps", "a barn", "--samplers", "ddim,dpmpp_2m", "--schedules", "default"),
    *("--steps", "2,3", "--seeds", "0", "--reference", "6", "--repeats", "1", "-o", "report"),
    *("--target-psnr", "1"),  # or the reference would take many more steps
)
CLOCKED = ("seconds", "created", "memory", "recommendation", "front", "knees", "notes")


def kill_sweep(folder: Path) -> str:
    """Killed at a random line of its journal and started again, sample-steps ends as undisturbed."""
    lines, results, files = _undisturbed()
    journal = folder / "report" / "journal.jsonl"
    ended = killed(folder, *SWEEP, progress=lambda: lines_of(journal), whole=lines)
    run(folder, *SWEEP)
    expect(_results(folder) == results, "the results differ from an undisturbed run's")
    expect(_files(folder) == files, f"files differ: {sorted(_files(folder) ^ files)}")
    whole_pictures(folder)
    return f"{'killed' if ended else 'done'}; then the results of an undisturbed run"


@cache
def _undisturbed() -> tuple[int, Any, set[str]]:
    """Lines of the journal, results and files of a sweep that nobody kills."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder, *SWEEP)
        lines = lines_of(folder / "report" / "journal.jsonl")
        return lines, _results(folder), _files(folder)


def _results(folder: Path) -> Any:
    return _form(json.loads((folder / "report" / "results.json").read_text(encoding="utf-8")))


def _files(folder: Path) -> set[str]:
    paths = (folder / "report").rglob("*")
    return {str(path.relative_to(folder)) for path in paths if path.is_file()}


def _form(value: Any) -> Any:
    """The value without what a clock decides: of that, only whether it is there."""
    if isinstance(value, dict):
        return {
            name: item is not None if any(word in name for word in CLOCKED) else _form(item)
            for name, item in value.items()
        }
    return [_form(item) for item in value] if isinstance(value, list) else value
