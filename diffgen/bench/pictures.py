"""The PNG files of a sweep: written atomically, and verified when read back."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from diffgen.files import replaced

MAX_PIXELS = 1 << 26  # of one picture: 8192 x 8192
KEPT = 8  # pictures of each cell stored as files; figures are stored for all


def picture_name(stem: str, number: int = 0) -> str:
    """The file of a cell's or reference's picture by its number: `STEM.png`, `STEM-p2.png`, ..."""
    return f"{stem}-p{number + 1}.png" if number else f"{stem}.png"


def write_png(image: Image.Image, path: Path) -> None:
    """Write a picture atomically. Raises OSError."""
    with replaced(path) as part:
        image.save(part, format="PNG")


def read_png(path: Path) -> Image.Image | None:
    """A stored picture; None if it is missing, cut off, no PNG or too large."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
