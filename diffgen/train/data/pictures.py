"""Picture files to upright RGB pixels of one size."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Resampling, Transpose

from diffgen.errors import ConfigError
from diffgen.pictures.opening import (
    HUGE,
    MAX_BYTES,
    DamagedPicture,
    check_whole,
    damage_told,
    open_picture,
)
from diffgen.pictures.upright import to_rgb, turned, upright_size
from diffgen.train.buckets import Placement, place
from diffgen.types import Size

REDUCING_GAP = 3.0  # Pillow's: from here on a box filter ahead of the resize cannot be seen


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture on disk, whole or a piece of a tar file, and the captions that fit it."""

    name: str
    file: Path
    captions: tuple[str, ...] = ()
    offset: int = 0
    length: int = -1  # to the end of the file

    def read(self) -> bytes:
        """The picture file's bytes. Raises DamagedPicture for a file that is too large.

        Raises ConfigError if they cannot be read.
        """
        try:
            with self.file.open("rb") as file:
                length = self.length if self.length >= 0 else os.fstat(file.fileno()).st_size
                if length > MAX_BYTES:
                    raise DamagedPicture("too large", HUGE)
                file.seek(self.offset)
                return file.read(length)
        except OSError as error:
            raise ConfigError(f"{self.file} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Probe:
    """What a picture's bytes say; no size, but the kind of problem, where it cannot be used."""

    digest: str
    size: Size | None
    problem: str = ""


def probe(entry: Entry) -> Probe:
    """Read a picture's header, and decode it where the file looks damaged."""
    try:
        data = entry.read()
        image = open_picture(data, Path(entry.name).suffix)
        size = upright_size(image)
        check_whole(image, data)
    except DamagedPicture as error:
        return Probe("", None, error.problem)
    return Probe(hashlib.blake2b(data, digest_size=16).hexdigest(), size)


def decode(
    entry: Entry, target: Size, *, x: float = 0.5, y: float = 0.5, flip: bool = False
) -> tuple[bytes, Placement]:
    """The picture cropped and resized: height * width * 3 bytes, and which part of it this is.

    Raises DamagedPicture, and ConfigError if the file cannot be read.
    """
    image = open_picture(entry.read(), Path(entry.name).suffix)
    placement = place(upright_size(image), target, x=x, y=y)
    with damage_told():
        image = to_rgb(turned(image)).resize(
            target, Resampling.LANCZOS, box=placement.box, reducing_gap=REDUCING_GAP
        )
    return (image.transpose(Transpose.FLIP_LEFT_RIGHT) if flip else image).tobytes(), placement
