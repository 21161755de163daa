"""One picture of all pictures of a run, small and labelled: a contact sheet, or a matrix's grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.errors import OutputError, UsageError
from diffgen.files import replaced

if TYPE_CHECKING:
    from PIL import Image

SIDE, LEAST = 192, 128  # largest and smallest longer side of a tile, in pixels
LABEL = 28  # pixels below a tile, for two lines
GAP = 6
MOST = 2500  # tiles
CHARACTERS = 24  # of a line below a tile
# Fields of a label, in this order, as far as they differ between the pictures.
TOLD = (
    "prompt",
    "towards",
    "seed",
    "steps",
    "guidance_scale",
    "sampler",
    "schedule",
    "model",
    "strength",
)


@dataclass(slots=True)
class Sheet:
    """Collects pictures in small; `columns` is the length of a row, by default near square."""

    columns: int | None = None
    _tiles: list[tuple[Image.Image, Mapping[str, Any]]] = field(default_factory=list)

    def add(self, image: Image.Image, record: Mapping[str, Any]) -> None:
        """Add a picture; pictures after the 2500th are dropped."""
        if len(self._tiles) < MOST:
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            self._tiles.append((small, {name: record.get(name) for name in TOLD}))

    def __len__(self) -> int:
        return len(self._tiles)

    def save(self, path: Path) -> None:
        """Write the sheet to a file, by its suffix. Raises UsageError and OutputError."""
        content = BytesIO()
        self._drawn().save(content, format=_format(path))
        try:
            with replaced(path) as part:
                part.write_bytes(content.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error

    def _drawn(self) -> Image.Image:
        from PIL import Image, ImageDraw

        columns = self.columns or math.ceil(math.sqrt(len(self._tiles)))
        rows = -(-len(self._tiles) // columns)
        side = max(LEAST, *(max(tile.size) for tile, _ in self._tiles))
        width, height = side + GAP, side + LABEL + GAP
        sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
        draw = ImageDraw.Draw(sheet)
        differing = self._differing()
        for i, (tile, record) in enumerate(self._tiles):
            x, y = i % columns * width + GAP, i // columns * height + GAP
            sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
            draw.multiline_text((x, y + side + 2), _label(record, differing), fill="black")
        return sheet

    def _differing(self) -> list[str]:
        first = self._tiles[0][1]
        differ = (name for name in TOLD if any(r[name] != first[name] for _, r in self._tiles))
        return list(differ) or ["prompt"]


def columns_of(counts: Sequence[int]) -> int | None:
    """The row length of a matrix's grid: its last list of several values; None without a matrix."""
    several = [count for count in counts if count > 1]
    return several[-1] if several else None


def check_sheet(path: str | None) -> None:
    """Raise UsageError for a name without a picture's suffix."""
    if path is not None:
        _format(Path(path))


def _format(path: Path) -> str:
    from diffgen.engine.encoding import format_of

    try:
        return format_of(path.suffix).upper()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _label(record: Mapping[str, Any], names: Sequence[str]) -> str:
    words = (
        str(record[name])
        if name in ("prompt", "sampler")
        else f"{name.split('_')[0]} {record[name]}"
        for name in names
    )
    # Pillow's font has only western European letters.
    text = ", ".join(words).encode("latin-1", "replace").decode("latin-1").replace("\n", " ")
    return f"{text[:CHARACTERS]}\n{text[CHARACTERS : 2 * CHARACTERS]}"
