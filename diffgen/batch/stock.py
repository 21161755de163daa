"""What is loaded together for pictures: a model with its additions, and which files these are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
        files = files_of(model) | {each.path for each in adapters.loras}
        files |= {each.path for each in adapters.embeddings}
        words = known_words(model, adapters.loras, adapters.embeddings)
        return cls(model, adapters, stamps(files), base, words)


def files_of(model: Model) -> set[Path]:
    """The weights of a model, with its own LoRAs."""
    infos = (info for part in model.checkpoint.tensors.values() for info in part.infos.values())
    return {info.file for info in infos} | {each.path for each in model.loras}


def stamps(files: Iterable[Path]) -> tuple[str, ...]:
    """Names with sizes and times, which tell whether files are the same."""
    return tuple(sorted(map(_stamp, files)))


def _stamp(path: Path) -> str:
    with suppress(OSError, WeightsError):
        if path.is_relative_to(PACKAGE):  # a new installation gives it another time
            with opened(path) as file:
                return f"{path.name} {sha256(path, stamp(file))}"
        status = path.stat()
        return f"{path.name} {status.st_size} {status.st_mtime_ns}"
    return path.name
