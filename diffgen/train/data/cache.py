"""Training data of cached latents, so that each picture is encoded only once.

diffgen.train.data.latents defines the files. With `flip`, a picture has two latents, one of them
mirrored. Filling the cache continues after an interruption, replaces damaged files, and is shared
by all processes. Captions are not cached: they are drawn at each use, and tokenizing one takes 40
microseconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path

import torch
from torch import Tensor

from diffgen.errors import OutputError, UsageError
from diffgen.train.data.dataset import (
    Batch,
    TrainingData,
    describe,
    held_out_batches,
    levels_of,
)
from diffgen.train.data.latents import LatentFiles, is_whole, read_latent, write_latent
from diffgen.train.data.loader import Group, Listed, Stream, all_damaged, candidates, run, show
from diffgen.train.data.order import Draw
from diffgen.train.data.report import DataReport
from diffgen.train.dist import World
from diffgen.types import Size

BLOCK = 4096  # bytes; what a small file takes of a disk, at least
HEADER = 128  # bytes

Encode = Callable[[Tensor], Tensor]  # levels (B, 3, H, W) uint8 to latents
Progress = Callable[[int, int], None]

ALONE = World(0, 1, torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class Variant:
    """A picture at one size, mirrored or not, and the file of its latent."""

    size: Size
    draw: Draw
    path: Path


class CachedData:
    """TrainingData with latents in place of pixels; the same stream, picture by picture."""

    def __init__(
        self, data: TrainingData, encode: Encode, files: LatentFiles, *, memory: int = 0
    ) -> None:
        """Latents are read from `files`; missing ones are encoded on demand.

        `memory` is how many bytes of them are kept, to be read once: a file takes 0.1 ms, and a GPU
        learns from ten thousand pictures in a second.

        Raises UsageError for random crops, which have no fixed latents.
        """
        if data.collection.variation.random_crop:
            raise UsageError('a cache holds one crop of each picture; use data.crop = "centre"')
        self._data, self._encode, self._files = data, encode, files
        self.collection = data.collection
        self._room, self._kept = memory, dict[tuple[Size, int, bool], Tensor]()

    @property
    def report(self) -> DataReport:
        """The data's own report; after `fill` every damaged picture is known."""
        return self._data.report

    @property
    def failed(self) -> tuple[int, ...]:
        """As TrainingData's."""
        return self._data.failed

    def mark_damaged(self, indices: Sequence[int]) -> None:
        """As TrainingData's."""
        self._data.mark_damaged(indices)

    def variants(self) -> list[Variant]:
        """Every latent that a batch may use, by size."""
        mirrored = (False, True) if self.collection.variation.flip else (False,)
        return [
            self._variant(group.size, Draw(index, flip=flip))
            for group in self.collection.groups
            for flip in mirrored
            for index in sorted((*group.members, *group.held_out))
        ]

    def state(self) -> str:
        """How many of the latents exist, in one line."""
        variants = self.variants()
        there = sum(is_whole(variant.path) for variant in variants)
        return f"{there} of {len(variants)} pictures have a latent in {self._files.folder}"

    def fill(
        self,
        source: str,
        *,
        world: World = ALONE,
        batch_size: int = 8,
        workers: int = 0,
        on_progress: Progress = lambda done, total: None,
    ) -> None:
        """Encode what is missing, shared by all processes, and remove what no data set uses.

        `source` identifies the data set: its absolute path, if it has one. `on_progress` gets the
        numbers of encoded and of all pictures. Raises OutputError if the folder cannot be written,
        another process fills it or the disk is too small, before a second batch is encoded.
        """
        variants = self.variants()
        names = {variant.path.stem for variant in variants}
        with ExitStack() as held:
            missing: list[int] = []
            if world.first:
                missing = _missing(variants)
                if missing or not self._files.remembers(source, names):
                    held.enter_context(self._files.lock())
                    missing = _missing(variants)  # another run may have filled it
            # One process decides for all: the others would see files written since.
            numbers = world.gather(missing)[0]
            work = _Work(self, batch_size, workers, on_progress, len(variants), world)
            failed = work.encode([variants[n] for n in numbers], world.rank, world.size)
            failed = {index for some in world.gather(sorted(failed)) for index in some}
            self.mark_damaged(sorted(failed))
            # Where processes share no disk, the others' share is missing here.
            rest = [variants[n] for n in numbers if variants[n].draw.index not in failed]
            work.encode([variant for variant in rest if not is_whole(variant.path)], 0, 1)
            world.wait()
            if world.first and not self._files.remembers(source, names):
                self._files.keep(source, names)

    def _variant(self, size: Size, draw: Draw) -> Variant:
        digest = self.collection.digests[draw.index]
        return Variant(size, draw, self._files.path(digest, size, flip=draw.flip))

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
            pairs = [(draw, self._latent(size, draw)) for draw in draws]
            sound = [(draw, latent) for draw, latent in pairs if latent is not None]
            if sound:
                yield self._batch(size, sound)

    def _sound(self, draw: Draw, group: Group) -> tuple[Draw, Tensor]:
        for index in candidates(draw.index, group.members):
            substitute = replace(draw, index=index)
            latent = self._latent(group.size, substitute)
            if latent is not None:
                return substitute, latent
        raise all_damaged(group.size)

    def _latent(self, size: Size, draw: Draw) -> Tensor | None:
        """(C, h, w); None for a damaged picture."""
        key = (size, draw.index, draw.flip)
        latent = self._kept.get(key)
        if latent is None:
            latent = self._found(size, draw)
            if latent is not None and latent.nbytes <= self._room:
                self._room -= latent.nbytes
                latent = self._kept[key] = latent.clone()  # its file is not held open
        return latent

    def _found(self, size: Size, draw: Draw) -> Tensor | None:
        latent = read_latent(self._variant(size, draw).path)
        if latent is not None or draw.index in self._data.failed:
            return latent
        shown = show(self.collection, size, [draw], ())
        self.mark_damaged(shown.failed)
        return self._encode(levels_of(shown))[0].cpu() if shown.draws else None

    def _batch(self, size: Size, pairs: Sequence[tuple[Draw, Tensor]]) -> Batch:
        draws, latents = zip(*pairs, strict=True)
        stacked = torch.stack(latents).float()
        return Batch(latents=stacked, **describe(self.collection, size, draws))


@dataclass(slots=True)
class _Work:
    """Encoding pictures into files."""

    data: CachedData
    batch_size: int
    workers: int
    on_progress: Progress
    total: int
    world: World

    def encode(self, missing: Sequence[Variant], rank: int, size: int) -> set[int]:
        """Write one share in `size` of what is missing: the pictures that cannot be decoded."""
        batches = _batches(missing, self.batch_size)[rank::size]
        collection = self.data.collection
        loader = Listed(collection, [(b[0].size, [v.draw for v in b]) for b in batches])
        failed: set[int] = set()
        done, written = self.total - len(missing), 0
        with closing(run(loader, stop=len(batches), workers=self.workers)) as decoded:
            for shown in decoded:
                failed.update(shown.failed)
                rows = [*self.data._encode(levels_of(shown)).cpu()] if shown.draws else []
                if not written and rows:
                    _check_space(self.data._files.folder, rows[0], shown.size, missing)
                for draw, row in zip(shown.draws, rows, strict=True):
                    write_latent(self.data._variant(shown.size, draw).path, row)
                written += len(shown.draws) + len(shown.failed)
                # The others are about as far.
                self.on_progress(done + min(written * size, len(missing)), self.total)
        return failed


def _missing(variants: Sequence[Variant]) -> list[int]:
    return [number for number, variant in enumerate(variants) if not is_whole(variant.path)]


def _batches(variants: Sequence[Variant], batch_size: int) -> list[list[Variant]]:
    """Runs of one size."""
    return [
        some[start : start + batch_size]
        for _, group in groupby(variants, key=lambda variant: variant.size)
        for some in [list(group)]
        for start in range(0, len(some), batch_size)
    ]


def _check_space(folder: Path, latent: Tensor, size: Size, missing: Sequence[Variant]) -> None:
    """Raise OutputError if the disk cannot take what is missing, judged by one (C, h, w)."""
    per_pixel = latent.nbytes / (size[0] * size[1])
    sizes = (per_pixel * v.size[0] * v.size[1] + HEADER for v in missing)
    needed = sum(-(-nbytes // BLOCK) * BLOCK for nbytes in sizes)
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(nearest).free
    if needed > free:
        raise OutputError(
            f"{folder}: the latent cache needs {needed / 1e6:,.2f} MB and the disk has "
            f"{free / 1e6:,.2f} MB left; free some, or set data.cache to a folder elsewhere"
        )
