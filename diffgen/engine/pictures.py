"""Read the pictures that a run begins with.

A picture that cannot be used is refused before a model is loaded.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Self

from PIL import Image

from diffgen.errors import PictureError, UsageError
from diffgen.files import expanded
from diffgen.pictures.opening import (
    DAMAGED,
    FLOATS,
    LARGE,
    MAX_BYTES,
    MAX_PIXELS,
    SUFFIXES,
    TEXT,
    WIDE,
    DamagedPicture,
    damage_told,
    frames_of,
    open_picture,
)
from diffgen.pictures.upright import in_8_bits, in_srgb, turned

STDIN = "-"
PROBLEMS = {
    DAMAGED: "is no picture, or a damaged one",
    TEXT: "is text, not a picture",
    LARGE: f"has more than {MAX_PIXELS // 10**6} megapixels",
    WIDE: "has pixels of 32-bit numbers, whose white is unknown; save it in 8 or 16 bits",
    FLOATS: "has pixels of floating-point numbers, whose white is unknown; save it in 8 or 16 bits",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A decoded picture: upright, 8 bits, RGB or RGBA, with its file's name and SHA-256.

    It is the first of the `frames` that the file has.
    """

    name: str
    sha256: str
    image: Image.Image
    frames: int = 1

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Open a picture file, or stdin for "-".

        Raises UsageError for an unreadable file and PictureError for one that is no picture,
        damaged, or too large to decode.
        """
        name = "stdin" if str(path) == STDIN else str(expanded(path))
        try:
            data = _data(path)
        except OSError as error:
            raise UsageError(f"cannot read the picture {name}: {error.strerror}") from error
        try:
            image, frames = _decoded(data, Path(name).suffix)
        except DamagedPicture as error:
            # Messages outside the table name a missing library.
            problem = PROBLEMS.get(error.problem, f"cannot be read: {error}")
            raise PictureError(f"{name} {problem}") from error
        return cls(name, sha256(data).hexdigest(), image, frames)

    @classmethod
    def of(cls, picture: str | Path | Image.Image) -> Self:
        """A picture file, or a picture in memory, which has no name and is hashed by its pixels."""
        if not isinstance(picture, Image.Image):
            return cls.read(picture)
        image = _plain(picture)
        return cls("", sha256(image.tobytes()).hexdigest(), image)

    @property
    def record(self) -> dict[str, object]:
        """The source picture as plain values."""
        return {"path": self.name or None, "sha256": self.sha256}


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name. Raises UsageError if there are none."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not found:
        raise UsageError(f"no pictures in the folder {folder}")
    return sorted(found)


def _data(path: str | Path) -> bytes:
    if str(path) != STDIN:
        with expanded(path).open("rb") as file:
            return _limited(file, os.fstat(file.fileno()).st_size, str(path))
    return _stdin()


@cache
def _stdin() -> bytes:
    """The bytes of stdin, which can be read only once."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("--init - reads a picture from stdin, where there is none; pipe one in")
    return _limited(sys.stdin.buffer, 0, "stdin")


def _limited(file: BinaryIO, size: int, name: str) -> bytes:
    data = file.read(MAX_BYTES + 1) if size <= MAX_BYTES else b""
    if size > MAX_BYTES or len(data) > MAX_BYTES:
        raise PictureError(
            f"{name} has more than {MAX_BYTES >> 30} GiB; that is no picture to change"
        )
    return data


def _decoded(data: bytes, suffix: str) -> tuple[Image.Image, int]:
    image = open_picture(data, suffix)
    with damage_told():
        frames = frames_of(image)
        return _plain(turned(image)), frames


def _plain(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent, in 8 bits."""
    image = in_srgb(in_8_bits(image))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB")
