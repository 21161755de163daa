"""Latents on disk, so that epochs do not pay for the autoencoder again.

Each run of pictures becomes one safetensors file under a folder named after everything that the
latents depend on: the data's fingerprint, the caller's key (the autoencoder's hash), the sizes and
whether pictures are mirrored, in which case both versions are kept. Files appear complete or not
at all, so an interrupted run goes on where it stopped. Captions are kept as text: which one is
shown, and whether any, is drawn anew in each turn, and tokenizing one takes 40 microseconds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from diffgen.errors import OutputError, UsageError
from diffgen.train.buckets import Size
from diffgen.train.data import (
    Batch,
    TrainingData,
    describe,
    held_out_batches,
    to_pixels,
)
from diffgen.train.loader import Group, Listed, Shown, Stream, all_damaged, candidates, run
from diffgen.train.order import Draw
from diffgen.train.report import DataReport
from diffgen.weights.files import LazyTensors, open_tensors, read_metadata

PER_FILE = 512  # pictures; what an interruption can lose
FREE_MARGIN = 1.05  # of the space needed: headers and directories

Encode = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of pictures of one size and the file with their latents."""

    path: Path
    size: Size
    draws: tuple[Draw, ...]


class CachedData:
    """TrainingData with latents in place of pixels; the same stream, picture by picture."""

    def __init__(self, data: TrainingData, latents: LazyTensors) -> None:
        self._data, self._latents = data, latents
        self.collection = data.collection

    @property
    def report(self) -> DataReport:
        """The data's own report; every damaged picture is known."""
        return self._data.report

    @property
    def failed(self) -> tuple[int, ...]:
        """As TrainingData's."""
        return self._data.failed

    def mark_damaged(self, indices: Sequence[int]) -> None:
        """As TrainingData's."""
        self._data.mark_damaged(indices)

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        workers: int = 0,
    ) -> Iterator[Batch]:
        """As TrainingData's; reading latents is too cheap for `workers`, which are not started."""
        stream = Stream(self.collection, batch_size, seed, rank, world)
        for number in count(start):
            group, draws = stream.draws(number)
            yield self._batch(group.size, [self._sound(draw, group) for draw in draws])

    def validation(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The held-out pictures, as TrainingData gives them."""
        for size, draws in held_out_batches(self.collection, batch_size)[rank::world]:
            sound = [draw for draw in draws if _name(draw) in self._latents.infos]
            if sound:
                yield self._batch(size, sound)

    def _sound(self, draw: Draw, group: Group) -> Draw:
        for index in candidates(draw.index, group.members):
            if _name(substitute := replace(draw, index=index)) in self._latents.infos:
                return substitute
        raise all_damaged(group.size)

    def _batch(self, size: Size, draws: Sequence[Draw]) -> Batch:
        latents = torch.stack([self._latents[_name(draw)] for draw in draws]).float()
        return Batch(latents=latents, **describe(self.collection, size, draws))


def cache_latents(
    data: TrainingData,
    encode: Encode,
    *,
    folder: Path,
    key: str,
    batch_size: int = 8,
    workers: int = 0,
    on_progress: Progress = lambda done, total: None,
) -> CachedData:
    """Encode every picture that is not in the cache yet: pixels (B, 3, H, W) to (B, C, h, w).

    `key` is a hash of the autoencoder and how it is used; `on_progress` gets pictures done and all.
    Raises UsageError for random crops, which have no fixed latents, and OutputError where the
    folder cannot be written or the disk is too small, before more than one batch is encoded.
    """
    if data.collection.variation.random_crop:
        raise UsageError('a cache holds one crop of each picture; use data.crop = "centre".')
    parts = _parts(data, _make_folder(folder / _digest(data, key)))
    missing = [part for part in parts if not part.path.is_file()]
    total = sum(len(part.draws) for part in parts)
    done = total - sum(len(part.draws) for part in missing)
    batches = [_batches(part, batch_size) for part in missing]
    loader = Listed(data.collection, [batch for part in batches for batch in part])
    with closing(run(loader, stop=len(loader.batches), workers=workers)) as decoded:
        for k, part in enumerate(missing):
            tensors: dict[str, Tensor] = {}
            failed: set[int] = set()
            for shown in islice(decoded, len(batches[k])):
                failed.update(shown.failed)
                rows = _encode(shown, encode)
                if rows and not tensors:
                    _check_space(folder, next(iter(rows.values())), part.size, missing[k:])
                tensors |= rows
                on_progress(done + len(tensors), total)
            _write(part.path, tensors, failed)
            done += len(part.draws)
    for part in parts:
        data.mark_damaged(_failed(part.path))
    return CachedData(data, open_tensors(part.path for part in parts))


def _parts(data: TrainingData, folder: Path) -> list[Part]:
    """Fixed runs of pictures, so that another batch size finds what this one left."""
    mirrored = (False, True) if data.collection.variation.flip else (False,)
    parts = []
    for g, group in enumerate(data.collection.groups):
        indices = sorted((*group.members, *group.held_out))
        for start in range(0, len(indices), PER_FILE):
            some = indices[start : start + PER_FILE]
            draws = tuple(Draw(index, flip=flip) for flip in mirrored for index in some)
            path = folder / f"{g:03}-{start // PER_FILE:06}.safetensors"
            parts.append(Part(path, group.size, draws))
    return parts


def _batches(part: Part, batch_size: int) -> list[tuple[Size, tuple[Draw, ...]]]:
    starts = range(0, len(part.draws), batch_size)
    return [(part.size, part.draws[start : start + batch_size]) for start in starts]


def _encode(shown: Shown, encode: Encode) -> dict[str, Tensor]:
    if not shown.draws:
        return {}
    latents = encode(to_pixels(shown)).cpu()
    return {_name(d): row.contiguous() for d, row in zip(shown.draws, latents, strict=True)}


def _digest(data: TrainingData, key: str) -> str:
    sizes = [group.size for group in data.collection.groups]
    held = (data.report.fingerprint, key, sizes, data.collection.variation.flip)
    return hashlib.blake2b(repr(held).encode(), digest_size=16).hexdigest()


def _name(draw: Draw) -> str:
    return f"{draw.index}-mirrored" if draw.flip else str(draw.index)


def _check_space(folder: Path, latents: Tensor, size: Size, missing: Sequence[Part]) -> None:
    """Raise OutputError if the disk cannot take what is missing, judged by one (C, h, w)."""
    per_pixel = latents.nbytes / (size[0] * size[1])
    pixels = sum(len(part.draws) * part.size[0] * part.size[1] for part in missing)
    needed, free = pixels * per_pixel * FREE_MARGIN, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: the latent cache needs {needed / 1e6:,.2f} MB and the disk has "
            f"{free / 1e6:,.2f} MB left; free some, or set data.cache to a folder elsewhere."
        )


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}.") from error
    return folder


def _write(path: Path, tensors: dict[str, Tensor], failed: Collection[int]) -> None:
    """A whole file or none; several processes may write the same one."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    metadata = {"failed": " ".join(map(str, sorted(failed)))}
    try:
        with temporary.open("wb") as file:
            file.write(save(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error


def _failed(path: Path) -> list[int]:
    return [int(index) for index in read_metadata(path)["failed"].split()]
