"""The metrics of a run: metrics.jsonl, TensorBoard if it is installed, and the loss curve."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError
from diffgen.jsonfile import parse_json

Row = Mapping[str, float]


class Metrics:
    """Appends rows to RUN/metrics.jsonl, and to RUN/tensorboard if TensorBoard is installed."""

    def __init__(self, run: Path, *, step: int) -> None:
        """Go on after `step`: later rows, from a run that was killed, are dropped."""
        self.path = run / "metrics.jsonl"
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        text = "".join(map(_line, rows))
        self.path.write_text(text, encoding="utf-8")
        self._board = _tensorboard(run, step)

    def write(self, row: Row) -> None:
        """One line; `step` is among its keys. Numbers that are not finite are left out."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        if self._board:
            for name, value in _finite(row).items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))
            self._board.flush()  # its own thread would keep rows back that a killed run has written


def means_of(rows: Sequence[Row]) -> dict[str, float]:
    """The average of each number over rows of the same names, leaving out what is not finite."""
    kept = [_finite(row) for row in rows]
    columns = {name: [row[name] for row in kept if name in row] for name in rows[0]}
    return {name: sum(column) / len(column) for name, column in columns.items() if column}


def _line(row: Row) -> str:
    # Infinity and NaN are no JSON.
    return json.dumps(_finite(row), allow_nan=False) + "\n"


def _finite(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _tensorboard(run: Path, step: int) -> Any:
    if not importlib.util.find_spec("tensorboard"):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.jsonl up to the first line that is damaged, or was cut off by a crash."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = parse_json(line, str(path))
        except ConfigError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def plot_curve(rows: list[dict[str, float]], path: Path) -> None:
    """Training and held-out loss over the steps, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for key, label in (("loss", "training"), ("held_out_loss", "held out, averaged weights")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
