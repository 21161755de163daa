"""Labelled pictures on a canvas, with Pillow alone, for contact sheets and strips."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT, SHADE, ACCENT = "#fbfaf7", "#1f1d1a", "#6c675e", "#efece5", "#a8401d"
ELLIPSIS = "..."
SMALLEST, LARGEST = 128, 256


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font."""
    return ImageFont.load_default(size)


def tile_size(width: int, height: int) -> tuple[int, int]:
    """The size of a drawn picture: enlarged by a whole factor, or reduced to `LARGEST`."""
    longest = max(width, height)
    if longest <= LARGEST:
        factor = max(1, -(-SMALLEST // longest))
        return width * factor, height * factor
    return max(1, width * LARGEST // longest), max(1, height * LARGEST // longest)


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at this size, with hard pixels if enlarged."""
    enlarged = size[0] > picture.width
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize(size, method)


def shortened(text: str, size: int, width: int) -> str:
    """The beginning of a text that fits into `width` pixels."""
    text = " ".join(text.split())
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text.rstrip() + ELLIPSIS


def write_text(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    size: int = 13,
    fill: str = INK,
    width: int | None = None,
) -> None:
    """One line of text from its upper left corner, cut at `width`."""
    draw.text(
        at, text if width is None else shortened(text, size, width), fill=fill, font=font(size)
    )
