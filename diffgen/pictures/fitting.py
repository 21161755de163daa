"""Sizes, crops, canvases and masks of init pictures."""

from __future__ import annotations

import math
from typing import TypeAlias

from PIL import Image, ImageFilter
from PIL.Image import Resampling

from diffgen.settings.editing import Fit
from diffgen.types import Size

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom in pixels
Sides: TypeAlias = tuple[int, int, int, int]  # the same order, as amounts
LARGEST = 2.0  # times the model's native side, if no size is given


def opaque(image: Image.Image) -> Image.Image:
    """RGB, transparency laid on white."""
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def transparency(image: Image.Image) -> Image.Image | None:
    """White where a picture is transparent, in mode L; None if it is opaque."""
    if image.mode != "RGBA":
        return None
    mask = image.getchannel("A").point(lambda level: 255 - level)
    return mask if mask.getbbox() else None


def as_mask(image: Image.Image) -> Image.Image:
    """A picture's brightness in mode L; transparent pixels count as black."""
    if image.mode == "RGBA":
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image)
    return image.convert("L")


def fitted(image: Image.Image, size: Size, fit: Fit) -> Image.Image:
    """A picture at another size; one of that size is returned unchanged.

    `crop` fills the size and cuts two sides, `pad` shows all and continues the edges into the rest,
    `stretch` changes the shape.
    """
    if image.size == size:
        return image
    if fit == "stretch":
        return image.resize(size, Resampling.LANCZOS)
    scales = [new / old for new, old in zip(size, image.size, strict=True)]
    scale = max(scales) if fit == "crop" else min(scales)
    if fit == "crop":
        box = _centred(image.size, (size[0] / scale, size[1] / scale))
        if scale == 1.0:  # nothing but pixels at the edges goes
            left, top = int(box[0]), int(box[1])
            return image.crop((left, top, left + size[0], top + size[1]))
        return image.resize(size, Resampling.LANCZOS, box=box)
    inner = tuple(max(1, round(side * scale)) for side in image.size)
    small = image.resize((inner[0], inner[1]), Resampling.LANCZOS)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    sides = (left, top, size[0] - inner[0] - left, size[1] - inner[1] - top)
    return extended(small, sides)


def extended(image: Image.Image, sides: Sides) -> Image.Image:
    """A larger canvas, with the pixels at the edges continued outwards."""
    left, top, right, bottom = sides
    width, height = image.size
    canvas = Image.new(image.mode, (left + width + right, top + height + bottom))
    columns = [(0, left, 0), (width - 1, right, left + width)]
    canvas.paste(image, (left, top))
    for x, count, place in columns:
        if count:
            edge = image.crop((x, 0, x + 1, height)).resize((count, height), Resampling.NEAREST)
            canvas.paste(edge, (place, top))
    full = canvas.size[0]
    for y, count, place in [(top, top, 0), (top + height - 1, bottom, top + height)]:
        if count:
            edge = canvas.crop((0, y, full, y + 1)).resize((full, count), Resampling.NEAREST)
            canvas.paste(edge, (0, place))
    return canvas


def beyond(size: Size, sides: Sides, reach: int = 0) -> Image.Image:
    """The mask of what `extended` adds to a picture of a size: white there, black inside.

    With a `reach` it fades over that many pixels of the picture, at sides that are extended only.
    """
    left, top, right, bottom = sides
    half = min(reach, size[0] // 2, size[1] // 2) // 2
    ends = (left + size[0] - half * bool(right), top + size[1] - half * bool(bottom))
    mask = Image.new("L", (left + size[0] + right, top + size[1] + bottom), 255)
    mask.paste(0, (left + half * bool(left), top + half * bool(top), *ends))
    return mask.filter(ImageFilter.BoxBlur(half)) if half else mask


def softened(mask: Image.Image, radius: float) -> Image.Image:
    """A mask with its edge blurred over about `radius` pixels."""
    return mask.filter(ImageFilter.GaussianBlur(radius)) if radius else mask


def size_for(
    original: Size, width: int | None, height: int | None, *, factor: int, native: int
) -> Size:
    """The size to draw a picture at, in multiples of `factor`.

    By default its own, up to LARGEST times a model's `native` side; with one given side, the other
    one follows from the shape.
    """
    if width and height:
        return width, height
    aspect = original[0] / original[1]
    if width:
        return width, _multiple(width / aspect, factor)
    if height:
        return _multiple(height * aspect, factor), height
    shrink = min(1.0, LARGEST * native / math.sqrt(original[0] * original[1]))
    if shrink < 1.0:
        return _multiple(original[0] * shrink, factor), _multiple(original[1] * shrink, factor)
    whole = (max(factor, side // factor * factor) for side in original)
    return next(whole), next(whole)


def crop_around(mask: Image.Image, margin: int, aspect: float | None = None) -> Box:
    """The bounding box of a mask with a margin, inside the picture.

    With an `aspect` (width to height) it grows to that shape, as far as the picture allows.
    """
    box = mask.getbbox()
    assert box is not None  # an empty mask was refused before
    spans = [(box[0] - margin, box[2] + margin), (box[1] - margin, box[3] + margin)]
    if aspect:
        lengths = [end - start for start, end in spans]
        wanted = [max(lengths[0], lengths[1] * aspect), max(lengths[1], lengths[0] / aspect)]
        spans = [_grown(span, round(to)) for span, to in zip(spans, wanted, strict=True)]
    (left, right), (top, bottom) = (
        _inside(span, side) for span, side in zip(spans, mask.size, strict=True)
    )
    return left, top, right, bottom


def _grown(span: tuple[int, int], length: int) -> tuple[int, int]:
    more = length - (span[1] - span[0])
    return span[0] - more // 2, span[1] + more - more // 2


def _inside(span: tuple[int, int], side: int) -> tuple[int, int]:
    """A span moved into 0 to `side`, and cut if it is longer."""
    length = min(span[1] - span[0], side)
    start = min(max(0, span[0]), side - length)
    return start, start + length


def size_for_crop(
    box: Box, width: int | None, height: int | None, *, factor: int, native: int
) -> Size:
    """The size to draw a part of a picture at: the model's native area, or the part's if larger."""
    part = (box[2] - box[0], box[3] - box[1])
    grown = max(1.0, native / math.sqrt(part[0] * part[1]))
    return size_for(
        (round(part[0] * grown), round(part[1] * grown)),
        width,
        height,
        factor=factor,
        native=native,
    )


def _multiple(length: float, factor: int) -> int:
    return max(1, round(length / factor)) * factor


def _centred(size: Size, inner: tuple[float, float]) -> tuple[float, float, float, float]:
    width, height = (min(a, b) for a, b in zip(inner, size, strict=True))
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height
