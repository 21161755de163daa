"""The results as a table for the terminal, cheapest cells first."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from diffgen.bench.results import Cell, Results, Statistic
from diffgen.bench.show.views import (
    DASH,
    axes_of,
    by_cost,
    common_references,
    plain_seconds,
    spread_text,
)
from diffgen.errors import one_line
from diffgen.settings.axes import title_of, value_text
from diffgen.settings.sweep import BY_LABEL

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

FRONT, RECOMMENDED = "*", ">"
LEGEND = (
    f"{FRONT} no other cell is both faster and closer    {RECOMMENDED} recommended\n"
    "NFE: network evaluations    +-: 95 % confidence interval"
)
COLUMNS = (
    *("", "sampler", "schedule", "steps", "NFE", "seconds"),
    *("PSNR dB", "+-", "SSIM", "RMSE", "CLIP"),
)
SACRIFICE = ("RMSE", "SSIM", "NFE", "+-", "seconds")  # for a narrow terminal, in this order
UNMEASURED = {"no_limit": "no limit", "failed": "failed", "ok": DASH}


def results_table(results: Results, left_out: Collection[str] = ()) -> Table:
    """Every cell, by network evaluations and then by PSNR; failed ones last.

    `left_out` are columns, of SACRIFICE, to omit. The caption explains the marks, and why cells
    failed or have no distance.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        caption=_caption(results),
        caption_justify="left",
        caption_style="dim",
    )
    scored = any(cell.clip for cell in results.cells)
    shown = [name for name in COLUMNS if name not in left_out and (scored or name != "CLIP")]
    column = shown.index("steps") + 1
    names = [*shown[:column], *axes_of(results), *shown[column:]]
    for name in names:
        _add_column(table, name)
    for cell in by_cost(results.cells):
        row = _row(results, cell)
        table.add_row(*(row[name] for name in names), style=_style(results, cell))
    return table


def _add_column(table: Table, name: str) -> None:
    if name in ("", "sampler"):
        table.add_column(name, min_width=2, no_wrap=True)
    elif name == "schedule":  # may be cut, and stays distinguishable
        table.add_column(name, overflow="crop")
    elif name in BY_LABEL and BY_LABEL[name].loads:  # what names begin with is often the same
        table.add_column(name, justify="right", overflow="fold")
    elif name in BY_LABEL:  # so may the heading
        table.add_column(name, justify="right", overflow="crop")
    else:
        table.add_column(name, justify="right", no_wrap=True)


def _row(results: Results, cell: Cell) -> dict[str, Text | str]:
    from rich.text import Text

    return {
        "": _mark(results, cell),
        "sampler": Text(cell.sampler),
        "schedule": Text(cell.schedule),
        "steps": str(cell.steps),
        **{name: _value(cell, name) for name in axes_of(results)},
        "NFE": str(cell.nfe),
        "seconds": plain_seconds(cell.seconds),
        "PSNR dB": f"{cell.psnr.mean:.1f}" if cell.psnr else UNMEASURED[cell.status],
        "+-": spread_text(cell.psnr, 1) if cell.psnr else "",
        "SSIM": _mean(cell.ssim, 3),
        "RMSE": _mean(cell.latent_rmse, 3),
        "CLIP": _mean(cell.clip, 2),
    }


def _mark(results: Results, cell: Cell) -> str:
    front = FRONT if cell.key in results.front else ""
    return (RECOMMENDED if cell.key in results.recommended else "") + front


def _value(cell: Cell, axis: str) -> str:
    """A cell's value on a further axis, which samplers may lack."""
    return value_text(cell.at[axis]) if axis in cell.at else DASH


def _mean(statistic: Statistic | None, digits: int) -> str:
    return f"{statistic.mean:.{digits}f}" if statistic else ""


def _style(results: Results, cell: Cell) -> str:
    if cell.status == "failed":
        return "red"
    if RECOMMENDED in _mark(results, cell):
        return "bold green"
    if cell.key in results.front:
        return "bold"
    return "dim" if cell.status == "no_limit" else ""


def _caption(results: Results) -> Text:
    """The legend and the floor, then one line per reason with all its cells."""
    from rich.text import Text

    lines = [LEGEND]
    lines += _floors(results)
    lines += [f"note: {note}" for note in results.notes]
    cells: dict[tuple[str, str], list[Cell]] = {}
    for cell in by_cost(results.cells):
        if cell.status != "ok":
            cells.setdefault((cell.status, cell.reason), []).append(cell)
    for (status, reason), group in cells.items():
        names = ", ".join(_name(group))
        lines.append(f"{UNMEASURED[status]}: {names}" + f" ({one_line(reason)})")
    return Text("\n".join(lines))


def _floors(results: Results) -> list[str]:
    """The certainty of the deterministic cells' references, and their use."""
    floors = [reference.floor_psnr for reference in common_references(results, results.cells)]
    exact = ", in fp32" if "dtype" in axes_of(results) else ""
    if len(floors) < 2:
        return [
            f"floor: two solvers of the reference agree to {psnr:.1f} dB{exact}" for psnr in floors
        ]
    solving = [label for label in axes_of(results) if BY_LABEL[label].solves]
    return [
        f"floor: two solvers of each reference agree to {min(floors):.1f} dB or more{exact}",
        f"PSNR: to the converged picture of the same {', '.join(solving)}; * and > hold within it",
    ]


def _name(cells: list[Cell]) -> list[str]:
    """`euler + karras 4/6/8`: the cells of a group, merged over steps."""
    steps: dict[str, list[int]] = {}
    for cell in cells:
        at = f", {title_of(cell.at.items())}," if cell.at else ""
        steps.setdefault(f"{cell.sampler} + {cell.schedule}{at}", []).append(cell.steps)
    return [f"{name} {'/'.join(map(str, sorted(many)))}" for name, many in steps.items()]
