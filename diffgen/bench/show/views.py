"""Shared by all views of a sweep: the order of cells, colours, formatted numbers, writing files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffgen.bench.folder import CELLS
from diffgen.bench.pictures import picture_name, read_png
from diffgen.bench.results import Cell, Reference, Results, Statistic, Timing
from diffgen.errors import OutputError
from diffgen.files import replaced
from diffgen.settings.axes import title_of
from diffgen.settings.sweep import BY_LABEL

# Distinct on white and on black, also for the colour-blind; neighbours differ most.
PALETTE = (
    "#3d78c2",
    "#d9782d",
    "#2e9a77",
    "#b8559a",
    "#a08a1c",
    "#7467c9",
    "#c24a44",
    "#2f97ad",
    "#7d7a74",
    "#8d6238",
)
# Dashes of a line, on and off in points, for each pass through the palette; () is solid.
DASHES: tuple[tuple[int, ...], ...] = ((), (6, 4), (2, 3), (8, 3, 2, 3))
TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # of a logarithmic axis, in each decade
FRONT, RECOMMENDED = "Pareto front", "recommended"
DASH = "-"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Series:
    """Cells that differ only in steps, ascending, and their style.

    `at` are their values on the further axes as text, `dashes` is one of DASHES.
    """

    key: str
    sampler: str
    schedule: str
    at: str
    cells: tuple[Cell, ...]
    colour: str
    dashes: tuple[int, ...]

    @property
    def label(self) -> str:
        return ", ".join(filter(None, (f"{self.sampler} + {self.schedule}", self.at)))


def all_series(results: Results) -> list[Series]:
    """The cells grouped by everything but their steps, in the order of the sweep."""
    groups: dict[str, list[Cell]] = {}
    for cell in results.cells:
        groups.setdefault(cell.series, []).append(cell)
    return [
        Series(
            key,
            cells[0].sampler,
            cells[0].schedule,
            title_of(cells[0].at.items()),
            tuple(sorted(cells, key=lambda cell: cell.steps)),
            PALETTE[i % len(PALETTE)],
            DASHES[i // len(PALETTE) % len(DASHES)],
        )
        for i, (key, cells) in enumerate(groups.items())
    ]


def by_cost(cells: Sequence[Cell]) -> list[Cell]:
    """Fewest evaluations first, ties by the closest picture; failed cells last.

    Solution by solution, since their distances have different references.
    """
    solutions = list(dict.fromkeys(cell.solution for cell in cells))

    def rank(cell: Cell) -> tuple[bool, int, int, float, str]:
        psnr = cell.psnr.mean if cell.psnr else float("-inf")
        group = solutions.index(cell.solution)
        return cell.status == "failed", group, cell.nfe, -psnr, cell.key

    return sorted(cells, key=rank)


def reference_name(results: Results, cell: Cell) -> str | None:
    """The key of a cell's reference in `results.references`; None without one."""
    known = cell.status == "ok" and cell.limit in results.references
    return cell.limit if known else None


def axes_of(results: Results) -> list[str]:
    """The labels of the further axes, in their order."""
    return [label for label in BY_LABEL if any(label in cell.at for cell in results.cells)]


def common_references(results: Results, cells: Iterable[Cell]) -> list[Reference]:
    """The references shared by deterministic cells, one for each solution."""
    names = dict.fromkeys(cell.limit for cell in cells if not cell.stochastic)
    return [results.references[name] for name in names if name in results.references]


def reference_label(reference: Reference) -> str:
    """`heun + exponential, 200 steps`."""
    return f"{reference.sampler} + {reference.schedule}, {reference.steps} steps"


def picture_file(folder: Path, cell: Cell, number: int = 0) -> Path | None:
    """A cell's picture; None if it has none that can be shown."""
    if cell.status == "failed":
        return None
    return _readable(folder / CELLS / picture_name(cell.key, number))


def reference_file(folder: Path, name: str, number: int = 0) -> Path | None:
    """A reference's picture by its key in `Results.references`, None without one."""
    stem = f"reference-{name}" if name else "reference"
    return _readable(folder / CELLS / picture_name(stem, number))


def _readable(path: Path) -> Path | None:
    return path if read_png(path) is not None else None


def picture_labels(settings: Mapping[str, object]) -> list[str]:
    """Labels of a cell's pictures, in order: `seed 1`, `"a cat", seed 0`."""
    prompts, seeds = settings.get("prompts"), settings.get("seeds")
    if not isinstance(prompts, list | tuple) or not isinstance(seeds, list | tuple):
        return []
    if len(prompts) == 1:
        return [f"seed {seed}" for seed in seeds]
    return [f'"{prompt}", seed {seed}' for prompt in prompts for seed in seeds]


def first_prompt(settings: Mapping[str, object]) -> str:
    """The prompt of the shown pictures."""
    prompts = settings.get("prompts")
    return str(prompts[0]) if isinstance(prompts, list | tuple) and prompts else ""


def first_seed(settings: Mapping[str, object]) -> str:
    """The seed of the shown pictures, as text."""
    seeds = settings.get("seeds")
    return str(seeds[0]) if isinstance(seeds, list | tuple) and seeds else ""


def seconds_text(seconds: float) -> str:
    """Three digits with the unit: `84 ms`, `0.412 s`, `12.3 s`, `154 s`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:#.3g} s"
    return f"{seconds:.0f} s"


def plain_seconds(timing: Timing | None) -> str:
    """The median without a unit, for a column of a table; `-` without any."""
    if timing is None:
        return DASH
    return f"{timing.median:.{3 if timing.median < 9.9995 else 1}f}"


def timing_text(timing: Timing | None) -> str:
    """Median with the extremes of the repeats: `0.412 s (0.405 to 0.431)`."""
    if timing is None:
        return DASH
    text = seconds_text(timing.median)
    if len(timing.repeats) < 2:
        return text
    return f"{text} ({seconds_text(timing.low)} to {seconds_text(timing.high)})"


def spread_text(statistic: Statistic, digits: int) -> str:
    """Half the width of the confidence interval, empty for a single picture."""
    return f"{statistic.ci95:.{digits}f}" if len(statistic.values) > 1 else ""


def statistic_text(statistic: Statistic | None, digits: int) -> str:
    """`31.24 +- 0.85`, with the sign; `-` without a value."""
    if statistic is None:
        return DASH
    spread = spread_text(statistic, digits)
    mean = f"{statistic.mean:.{digits}f}"
    return f"{mean} {PLUS_MINUS} {spread}" if spread else mean


def memory_text(size: int | None) -> str:
    """`412 MiB`, `7.3 GiB`; `-` if not measured."""
    if size is None:
        return DASH
    mebibytes = size / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1000 else f"{mebibytes:.0f} MiB"


def write_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make a file, and move it into place. Raises OutputError."""
    try:
        with replaced(path) as part:
            write(part)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    return path
