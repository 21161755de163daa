"""Picture files to upright RGB pixels of one size. Importing this module does not import torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.Image import Resampling, Transpose

from diffgen.errors import ConfigError
from diffgen.train.buckets import Placement, Size, place

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"}
)
ORIENTATION = 0x0112  # the EXIF tag; the table undoes what a camera held sideways did
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})
TEXT_BYTES = frozenset(range(32, 127)) | set(b"\t\r\n")
REDUCING_GAP = 3.0  # Pillow's: from here on a box filter ahead of the resize cannot be seen


class DamagedPicture(Exception):
    """A picture that cannot be decoded; it is skipped and counted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture on disk, whole or a piece of a tar file, and the captions that fit it."""

    name: str
    file: Path
    captions: tuple[str, ...] = ()
    offset: int = 0
    length: int = -1  # to the end of the file

    def read(self) -> bytes:
        """The picture file's bytes. Raises ConfigError if they cannot be read."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise ConfigError(f"{self.file} cannot be read: {error.strerror}.") from error


@dataclass(frozen=True, slots=True)
class Probe:
    """What a picture's bytes say before they are decoded; no size for a damaged one."""

    digest: str
    size: Size | None
    is_text: bool = False


def probe(entry: Entry) -> Probe:
    """Read a picture's header. A file of text (a web page, an SVG) is no damaged picture."""
    data = entry.read()
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        return Probe(digest, _upright_size(_open(data)))
    except DamagedPicture:
        start = data[:64]
        return Probe(digest, None, is_text=bool(start.strip()) and TEXT_BYTES.issuperset(start))


def decode(
    entry: Entry, target: Size, *, x: float = 0.5, y: float = 0.5, flip: bool = False
) -> tuple[bytes, Placement]:
    """The picture cropped and resized: height * width * 3 bytes, and which part of it this is.

    Raises DamagedPicture, and ConfigError if the file cannot be read.
    """
    image = _open(entry.read())
    orientation = _orientation(image)
    size = _upright_size(image)
    placement = place(size, target, x=x, y=y)
    try:
        upright = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
        image = _to_rgb(upright).resize(
            target, Resampling.LANCZOS, box=placement.box, reducing_gap=REDUCING_GAP
        )
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise DamagedPicture(str(error)) from error
    return (image.transpose(Transpose.FLIP_LEFT_RIGHT) if flip else image).tobytes(), placement


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data))
    except UnidentifiedImageError as error:
        raise DamagedPicture("not a picture") from error
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise DamagedPicture(str(error)) from error


def _orientation(image: Image.Image) -> int:
    """1 for upright. Pillow turns TIFF itself, and would decode a PNG just to look for the tag."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, OSError):  # damaged tags beside a sound picture
        return 1


def _upright_size(image: Image.Image) -> Size:
    width, height = image.size
    return (height, width) if _orientation(image) in SIDEWAYS else (width, height)


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit grey scaled down, transparency laid on white."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda level: level * (1 / 256) + 0).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
