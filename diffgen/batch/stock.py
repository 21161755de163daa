"""What is loaded together for pictures: a model with its additions, and which files these are."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from diffgen.engine.model import Model
from diffgen.engine.tags import known_words
from diffgen.errors import WeightsError
from diffgen.settings.model import Adapters
from diffgen.weights.hashes import sha256
from diffgen.weights.reading import opened, stamp
from diffgen.weights.registry import PACKAGE


@dataclass(frozen=True, slots=True)
class Stock:
    """A model with its additions: everything that is loaded together."""

    model: Model
    adapters: Adapters
    stamp: tuple[str, ...]  # which files these are, by size and time
    base: str = ""  # equal for stocks that differ by their LoRAs only
    words: Collection[str] = ()  # names of learned embeddings

    @classmethod
    def of(cls, model: Model, adapters: Adapters, base: str) -> Self:
        """The stock of an opened model."""
        infos = (info for part in model.checkpoint.tensors.values() for info in part.infos.values())
        files = {info.file for info in infos}
        files |= {each.path for each in (*model.loras, *adapters.loras)}
        files |= {each.path for each in adapters.embeddings}
        words = known_words(model, adapters.loras, adapters.embeddings)
        return cls(model, adapters, tuple(sorted(map(_stamp, files))), base, words)


def _stamp(path: Path) -> str:
    with suppress(OSError, WeightsError):
        if path.is_relative_to(PACKAGE):  # a new installation gives it another time
            with opened(path) as file:
                return f"{path.name} {sha256(path, stamp(file))}"
        status = path.stat()
        return f"{path.name} {status.st_size} {status.st_mtime_ns}"
    return path.name
