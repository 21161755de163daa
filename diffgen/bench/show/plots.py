"""plots.png and plots.svg: quality against network evaluations and against seconds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from diffgen.bench.limits import by_solution
from diffgen.bench.results import Cell, Results
from diffgen.bench.show.tiles import ACCENT, INK, SOFT
from diffgen.bench.show.views import (
    FRONT,
    RECOMMENDED,
    TICKS,
    Series,
    all_series,
    common_references,
    write_file,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cost: TypeAlias = Literal["nfe", "seconds"]

COSTS: tuple[tuple[Cost, str], ...] = (
    ("nfe", "Network evaluations"),
    ("seconds", "Seconds for one picture"),
)
LEGEND_ROOM = 150  # characters across
LINE = "#e5e1d8"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "text.color": INK,
    "text.parse_math": False,  # a model's name may contain anything
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "ytick.left": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "diffgen",  # equal results give equal files
}


def write_plots(results: Results, folder: Path) -> None:
    """Draw PSNR of every cell with its confidence interval; needs no display.

    The floor is the certainty of the reference; the Pareto front is drawn against seconds. Raises
    OutputError.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Glyphs that the font lacks are drawn as boxes, without a warning.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = _figure(results)
        for name, options in (
            ("plots.png", {"dpi": 160}),
            ("plots.svg", {"metadata": {"Date": None}}),
        ):
            _save(figure, folder / name, options)


def _save(figure: Figure, path: Path, options: dict[str, Any]) -> None:
    write_file(path, lambda part: figure.savefig(part, facecolor="white", **options))


def _figure(results: Results) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = all_series(results)
    longest = max((len(one.label) for one in series if one.at), default=0)
    columns = 5 if not longest else max(1, LEGEND_ROOM // (longest + 8))
    rows = -(-(len(series) + 2) // columns)
    figure = Figure(figsize=(11.0, 4.7 + 0.24 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (cost, title) in zip(axes, COSTS, strict=True):
        _draw(axis, results, series, cost)
        axis.set_title(title)
    axes[0].set_ylabel("PSNR against the converged picture (dB)")
    handles, labels = axes[1].get_legend_handles_labels()
    # matplotlib lists points before lines; here samplers come first.
    entries = sorted(
        zip(handles, labels, strict=True), key=lambda entry: entry[1] in (FRONT, RECOMMENDED)
    )
    if entries:
        figure.legend(
            *zip(*entries, strict=True), loc="outside lower center", ncols=columns, frameon=False
        )
    figure.suptitle(f"{results.model}: quality against cost", x=0.01, ha="left", weight="bold")
    return figure


def _draw(axis: Axes, results: Results, series: Sequence[Series], cost: Cost) -> None:
    measured = [cell for cell in results.cells if _is_measured(cell)]
    if not measured:
        axis.text(0.5, 0.5, "no cell was measured", transform=axis.transAxes, ha="center")
        axis.set_axis_off()
        return
    floor = _floor(results, measured)
    if floor is not None:
        _draw_floor(axis, floor)
    for one in series:
        _draw_series(axis, one, cost)
    on_front = [c for key in results.front for c in measured if c.key == key]
    for number, front in enumerate(by_solution(on_front)):
        _draw_front(axis, front, cost, label=None if number else FRONT)
    _draw_recommendation(axis, results, measured, cost)
    _set_scales(axis, [_cost(cell, cost) for cell in measured], every=cost == "nfe")
    levels = [*map(_psnr, measured), *([] if floor is None else [floor])]
    # The range of means and floor; error bars of few pictures would exceed it.
    room = max(1.0, 0.06 * (max(levels) - min(levels)))
    axis.set_ylim(min(levels) - room, max(levels) + room)


def _draw_series(axis: Axes, series: Series, cost: Cost) -> None:
    cells = [cell for cell in series.cells if _is_measured(cell)]
    if not cells:
        return
    axis.errorbar(
        [_cost(cell, cost) for cell in cells],
        [_psnr(cell) for cell in cells],
        yerr=[cell.psnr.ci95 if cell.psnr else 0.0 for cell in cells],
        label=series.label,
        color=series.colour,
        ecolor=(series.colour, 0.25),
        elinewidth=1.0,
        linestyle=(0, series.dashes),
        linewidth=1.5,
        marker="o",
        markersize=4,
        zorder=3,
    )


def _floor(results: Results, measured: Sequence[Cell]) -> float | None:
    """PSNR between the two solutions of a reference shared by deterministic samplers.

    Of several references, the least certain one's.
    """
    shared = common_references(results, measured)
    return min((each.floor_psnr for each in shared), default=None)


def _draw_floor(axis: Axes, floor: float) -> None:
    axis.axhline(floor, color=SOFT, linestyle="--", linewidth=1.0, zorder=1)
    axis.annotate(
        "floor of the reference",
        (0.01, floor),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        va="top",
        color=SOFT,
        fontsize=9,
    )


def _draw_front(axis: Axes, front: Sequence[Cell], cost: Cost, label: str | None) -> None:
    """Rings around the front's points; against seconds, also its line, for a single solution."""
    x, y = [_cost(cell, cost) for cell in front], [_psnr(cell) for cell in front]
    if cost == "seconds":
        axis.step(x, y, where="post", color=ACCENT, alpha=0.25, linewidth=5, zorder=1)
    axis.scatter(
        x,
        y,
        s=42,
        facecolors="none",
        edgecolors=INK,
        linewidths=1.2,
        zorder=4,
        label=label,
    )


def _draw_recommendation(
    axis: Axes, results: Results, measured: Sequence[Cell], cost: Cost
) -> None:
    chosen = [cell for cell in measured if cell.key in results.recommended]
    for number, cell in enumerate(chosen):
        axis.scatter(
            _cost(cell, cost),
            _psnr(cell),
            s=150,
            facecolors="none",
            edgecolors=ACCENT,
            linewidths=2.2,
            zorder=5,
            label=None if number else RECOMMENDED,
        )


def _set_scales(axis: Axes, costs: Sequence[float], *, every: bool) -> None:
    """A logarithmic axis of costs, with plain numbers as ticks: at each cost if `every`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axis.set_xscale("log")
    axis.set_xlim(min(costs) / 1.15, max(costs) * 1.15)
    measured = FixedLocator(_apart(costs))
    axis.xaxis.set_major_locator(measured if every else LogLocator(subs=TICKS, numticks=100))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _apart(costs: Sequence[float]) -> list[float]:
    """Costs at least a twentieth of the logarithmic axis apart, so that labels do not overlap."""
    room = (max(costs) / min(costs)) ** 0.05
    kept: list[float] = []
    for cost in sorted(set(costs)):
        if not kept or cost >= room * kept[-1]:
            kept.append(cost)
    return kept


def _is_measured(cell: Cell) -> bool:
    return cell.psnr is not None and cell.seconds is not None


def _cost(cell: Cell, cost: Cost) -> float:
    return cell.seconds.median if cost == "seconds" and cell.seconds else float(cell.nfe)


def _psnr(cell: Cell) -> float:
    return cell.psnr.mean if cell.psnr else 0.0
