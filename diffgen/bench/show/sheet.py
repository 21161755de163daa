"""sheet.png: the pictures of a sweep, samplers down and steps across, each beside its reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from diffgen.bench.results import Cell, Results
from diffgen.bench.show import tiles, views
from diffgen.bench.show.views import Series

LABEL_WIDTH = 140
GAP, CAPTION, MARGIN = 10, 24, 24
HEADER = 108
LEGEND = (
    "Below each: PSNR against the converged picture, mean of all pictures, and seconds of "
    "sampling. Dark: Pareto front. Framed: recommended."
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions on the sheet, in pixels."""

    tile: tuple[int, int]
    columns: tuple[int, ...]  # step counts
    rows: int

    @property
    def size(self) -> tuple[int, int]:
        width, _ = self.place(0, len(self.columns) + 1)
        _, height = self.place(self.rows, 0)
        return width - GAP + MARGIN, height - GAP + MARGIN

    def place(self, row: int, column: int) -> tuple[int, int]:
        """Upper left corner of a tile; the column after the last one is the reference's."""
        width, height = self.tile
        x = MARGIN + LABEL_WIDTH + column * (width + GAP)
        return x + (GAP if column >= len(self.columns) else 0), (
            HEADER + row * (height + CAPTION + GAP)
        )


def write_sheet(results: Results, folder: Path) -> Path | None:
    """Write sheet.png from the pictures in the folder's `cells`; None without any.

    Raises OutputError.
    """
    files = [path for cell in results.cells if (path := views.picture_file(folder, cell))]
    if not files:
        return None
    with Image.open(files[0], formats=("PNG",)) as first:
        tile = tiles.tile_size(*first.size)
    steps = tuple(sorted({cell.steps for cell in results.cells}))
    series = views.all_series(results)
    sheet = _Sheet(results, folder, Layout(tile, steps, len(series)))
    sheet.draw_header()
    for row, one in enumerate(series):
        sheet.draw_row(row, one)
    return views.write_file(folder / "sheet.png", sheet.canvas.save)


class _Sheet:
    """The sheet in progress."""

    def __init__(self, results: Results, folder: Path, layout: Layout) -> None:
        self._results, self._folder, self._layout = results, folder, layout
        self.canvas = Image.new("RGB", layout.size, tiles.PAPER)
        self._draw = ImageDraw.Draw(self.canvas)

    def draw_header(self) -> None:
        """The title, and the headings of the columns."""
        settings, layout = self._results.settings, self._layout
        prompt, seed = views.first_prompt(settings), views.first_seed(settings)
        shown = [f'"{prompt}"' if prompt else "", f"seed {seed}" if seed else ""]
        text = ", ".join([self._results.model, *filter(None, shown)])
        width = layout.size[0] - 2 * MARGIN
        tiles.write_text(self._draw, (MARGIN, 20), text, size=17, width=width)
        self._write((MARGIN, 44), LEGEND, width=width)
        self._write((MARGIN, HEADER - 24), "steps", width=LABEL_WIDTH)
        for column, heading in enumerate([*map(str, layout.columns), "converged"]):
            self._write((layout.place(0, column)[0], HEADER - 24), heading)

    def draw_row(self, row: int, series: Series) -> None:
        """The cells of one sampler with one schedule, and their reference."""
        x, y = MARGIN, self._layout.place(row, 0)[1]
        width = LABEL_WIDTH - GAP
        tiles.write_text(self._draw, (x, y), series.sampler, size=15, width=width)
        self._write((x, y + 20), series.schedule, width=width)
        for line, value in enumerate(series.at.split(", "), start=2):
            self._write((x, y + 20 * line), value, width=width)
        for cell in series.cells:
            self._draw_cell((row, self._layout.columns.index(cell.steps)), cell)
        names = (views.reference_name(self._results, cell) for cell in series.cells)
        name = next((name for name in names if name is not None), None)
        file = None if name is None else views.reference_file(self._folder, name)
        self._paste((row, len(self._layout.columns)), file, "none")

    def _draw_cell(self, place: tuple[int, int], cell: Cell) -> None:
        empty = "failed" if cell.status == "failed" else "no picture"
        self._paste(place, views.picture_file(self._folder, cell), empty)
        x, y = self._layout.place(*place)
        width, height = self._layout.tile
        recommended = cell.key in self._results.recommended
        if recommended:
            box = (x - 4, y - 4, x + width + 3, y + height + 3)
            self._draw.rectangle(box, outline=tiles.ACCENT, width=3)
        on_front = cell.key in self._results.front
        fill = tiles.ACCENT if recommended else tiles.INK if on_front else tiles.SOFT
        self._write((x, y + height + 5), _caption(cell), fill=fill)

    def _paste(self, place: tuple[int, int], file: Path | None, empty: str) -> None:
        """A picture, or a grey tile with the reason for its absence."""
        x, y = self._layout.place(*place)
        width, height = self._layout.tile
        if file is None:
            self._draw.rectangle((x, y, x + width - 1, y + height - 1), fill=tiles.SHADE)
            self._write((x + 8, y + 8), empty, width=width - 16)
            return
        with Image.open(file, formats=("PNG",)) as picture:
            self.canvas.paste(tiles.fitted(picture, self._layout.tile), (x, y))

    def _write(
        self, at: tuple[int, int], text: str, *, fill: str = tiles.SOFT, width: int | None = None
    ) -> None:
        tiles.write_text(self._draw, at, text, fill=fill, width=width or self._layout.tile[0])


def _caption(cell: Cell) -> str:
    """PSNR and time: `31.2 dB, 0.41 s`."""
    quality = "no limit" if cell.status == "no_limit" else ""
    if cell.psnr:
        quality = f"{cell.psnr.mean:.1f} dB"
    time = views.seconds_text(cell.seconds.median) if cell.seconds else ""
    return ", ".join(filter(None, (quality, time)))
