"""Scenes that `draw` wrote as shards, read back to judge by: one pass over the disk, then memory."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scripts.storybook.scene import Group, Scene


@dataclass(frozen=True, slots=True)
class Shelf:
    """Pictures, (N, size, size, 3) uint8, and their scenes."""

    pixels: NDArray[np.uint8]
    scenes: tuple[Scene, ...]

    @classmethod
    def read(cls, folder: Path, size: int) -> "Shelf":
        """All shards of a folder, pictures scaled to `size`. Raises FileNotFoundError for none."""
        shards = sorted(folder.glob("*.tar"))
        if not shards:
            raise FileNotFoundError(f"{folder} holds no .tar shards; draw --format shards")
        pairs = [pair for shard in shards for pair in _pairs(shard, size)]
        return cls(np.stack([picture for picture, _ in pairs]), tuple(s for _, s in pairs))


def _pairs(shard: Path, size: int) -> Iterator[tuple[NDArray[np.uint8], Scene]]:
    """Each scene's picture comes before its record, as `draw` writes them."""
    picture = None
    with tarfile.open(shard) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            if entry.name.endswith(".png"):
                with Image.open(io.BytesIO(file.read()), formats=["PNG"]) as image:
                    small = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
                picture = np.asarray(small)
            elif entry.name.endswith(".json"):
                assert picture is not None
                yield picture, _scene(json.load(file)["scene"])


def _scene(record: dict[str, Any]) -> Scene:
    groups = tuple(Group(**group) for group in record["groups"])
    return Scene(**{**record, "groups": groups})
