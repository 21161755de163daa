"""Write scripts/README.md from the committed results: `python scripts/page.py`.

A benchmark's `--json scripts/results/NAME.json` puts a result there, in place of an older one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS, PAGE = FOLDER / "results", FOLDER / "README.md"
INTRODUCTION = """\
# Scripts and benchmarks

`python scripts/check.py` runs everything a change must pass. `storybook/` makes the model on board
([how](storybook/README.md)), `faults/` tries what kills and full disks do, `fuzz.py` feeds mutated
models, `lock_weights.py` compares `weights.toml` with the hub and fills in what it lacks,
`bench_*.py` measure. Each benchmark runs its cases by turns in one go, after a round that is
not counted, so figures of one table compare and figures of two tables do not.

The tables below are written by `page.py` from `results/*.json`; a test holds page and results
together. To measure here: `python scripts/bench_step.py --json scripts/results/step.json`, then
`python scripts/page.py`.
"""


def section(result: dict[str, Any]) -> str:
    """One result: what was measured, by which command, where, and its table."""
    where = result["machine"]
    return (
        f"## {result['title']}\n\n`python scripts/{result['command']}`, {result['date']}, "
        f"commit {where['commit']}: {where['device']}, {where['cores']} cores, "
        f"Python {where['python']}, torch {where['torch']}, load {where['load']}\n\n"
        f"{result['table']}\n"
    )


def page() -> str:
    """The whole page."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))
    ]
    return "\n".join([INTRODUCTION, *map(section, found)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
