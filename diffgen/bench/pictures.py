"""The PNG files of a sweep: written whole, and read back only where they are what was written."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from diffgen.files import replaced

MAX_PIXELS = 1 << 26  # of one picture: 8192 x 8192
KEPT = 8  # pictures of each cell that are kept as files; figures are kept of all


def picture_name(stem: str, number: int = 0) -> str:
    """The file of a cell's or reference's picture by its number: `STEM.png`, `STEM-p2.png`, ..."""
    return f"{stem}-p{number + 1}.png" if number else f"{stem}.png"


def write_png(image: Image.Image, path: Path) -> None:
    """Put a picture in place. Raises OSError."""
    with replaced(path) as part:
        image.save(part, format="PNG")


def read_png(path: Path) -> Image.Image | None:
    """A picture written before; None where it is missing, cut off, no PNG or absurdly large."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
