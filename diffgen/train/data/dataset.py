"""Training data: pictures with captions from any of four layouts, as a reproducible stream."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from diffgen.errors import ConfigError, UsageError
from diffgen.files import expanded
from diffgen.pictures.opening import TEXT
from diffgen.text.tokenizer import Tokenizer
from diffgen.train.buckets import TimeIds, bucket_sizes, nearest_bucket, place, unenlarged
from diffgen.train.data.captions import Style, check_captioned, read_table
from diffgen.train.data.folders import TABLES, pictures_below, read_folder
from diffgen.train.data.headers import probe_all
from diffgen.train.data.loader import Collection, Group, Listed, Shown, Stream, run
from diffgen.train.data.order import Draw, Variation
from diffgen.train.data.pictures import Entry, Probe
from diffgen.train.data.report import NAMED_AT_MOST, DataReport, Found, listed, printable, some
from diffgen.train.data.shards import expand_shards, read_shards
from diffgen.train.recipe.recipe import DataRecipe
from diffgen.types import Size

if TYPE_CHECKING:
    from torch import Tensor

BESIDE = "pictures beside the shards, left out"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pictures of one size and their captions; either levels or cached latents.

    A caption dropped at random is empty. `time_ids` is SDXL's size conditioning:
    original height and width, crop top and left, target height and width.
    """

    levels: Tensor | None = None  # (B, 3, H, W) uint8, a quarter of what pixels take
    latents: Tensor | None = None  # (B, C, h, w) float32
    captions: tuple[str, ...]
    indices: tuple[int, ...]
    time_ids: tuple[TimeIds, ...]

    @property
    def whole_levels(self) -> Tensor:
        """The levels of a batch that is known to have them."""
        assert self.levels is not None
        return self.levels

    @property
    def pixels(self) -> Tensor | None:
        """(B, 3, H, W) float32 in [-1, 1]."""
        return None if self.levels is None else as_pixels(self.levels)


class Description(TypedDict):
    """Captions, indices and sizes of the pictures of a batch."""

    captions: tuple[str, ...]
    indices: tuple[int, ...]
    time_ids: tuple[TimeIds, ...]


class TrainingData:
    """Pictures to learn from, and held-out ones."""

    def __init__(self, collection: Collection, report: DataReport) -> None:
        self.collection = collection
        self._report = report
        self._failed: dict[int, None] = {}

    @property
    def report(self) -> DataReport:
        """Counts and names; pictures found damaged while decoding are added as they are met.

        `held_out` stays what it was: processes that meet other pictures act on it together.
        """
        if not self._failed:
            return self._report
        learned = {i for group in self.collection.groups for i in group.members}
        return replace(
            self._report,
            pictures=self._report.pictures - len(self._failed.keys() & learned),
            failed=tuple(self.collection.entries[i].name for i in self.failed),
        )

    @property
    def failed(self) -> tuple[int, ...]:
        """The pictures found damaged while decoding, by index."""
        return tuple(sorted(self._failed))

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
        """The endless stream of one rank, from batch `start` on.

        It depends on all arguments but `workers` and `start`; ranks of one step together get what
        one process gets with batch_size * world. Raises ConfigError, while it runs, for files
        that vanished, and DiffgenError for a worker that was killed.
        """
        stream = Stream(self.collection, batch_size, seed, rank, world)
        for shown in run(stream, start=start, workers=workers):
            yield self._batch(shown)

    def validation(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """One rank's share of the held-out pictures, decoded a batch at a time.

        Centre crop, first caption, nothing dropped or mirrored.
        """
        listed = Listed(self.collection, held_out_batches(self.collection, batch_size)[rank::world])
        for shown in run(listed, stop=len(listed.batches), workers=0):
            if shown.draws:
                yield self._batch(shown)

    def mark_damaged(self, indices: Sequence[int]) -> None:
        """Add pictures that could not be decoded to the report."""
        self._failed |= dict.fromkeys(indices)

    def _batch(self, shown: Shown) -> Batch:
        self._tell(index for index in shown.failed if index not in self._failed)
        self.mark_damaged(shown.failed)
        return Batch(levels=levels_of(shown), **describe(self.collection, shown.size, shown.draws))

    def _tell(self, failed: Iterable[int]) -> None:
        for number, index in enumerate(failed, len(self._failed)):
            if number < NAMED_AT_MOST:
                name = printable(self.collection.entries[index].name)
                _log.warning(
                    "%s is damaged, as decoding it shows; it is left out, and the next picture of "
                    "its size comes twice as often",
                    name,
                )
            elif number == NAMED_AT_MOST:
                _log.warning("more damaged pictures; the model card will name and count them")


def open_data(
    recipe: DataRecipe, *, tokenizer: Tokenizer | None = None, captioned: bool = True
) -> TrainingData:
    """Find the pictures, read every header, and choose sizes and held-out pictures.

    With a tokenizer, captions that it would cut are counted. `captioned=False` allows pictures
    without captions. With a cache folder, headers are read once and remembered there. Raises
    UsageError and ConfigError for data that cannot be trained on.
    """
    found = find_entries(recipe.path, recipe.captions)
    if not found.entries:
        remarks = "".join(f"; {about}: {listed(names)}" for about, names in found.notes.items())
        raise UsageError(f"data.path: no pictures found in {recipe.path}{remarks}")
    entries, probes = _usable(found, recipe)
    if captioned:
        check_captioned(entries, recipe.path)
    dimensions = tuple(p.size for p in probes if p.size)
    collection = Collection(
        entries=entries,
        dimensions=dimensions,
        groups=_groups(recipe, entries, dimensions),
        variation=Variation(recipe.flip, recipe.crop == "random", recipe.caption_dropout),
        digests=tuple(p.digest for p in probes),
    )
    notes = tuple((about, tuple(names)) for about, names in found.notes.items())
    fingerprint = _fingerprint(entries, probes)
    report = _report(collection, tokenizer)
    return TrainingData(collection, replace(report, notes=notes, fingerprint=fingerprint))


def find_entries(path: str, captions: Style = "auto") -> Found:
    """The pictures behind a path: a folder, a table, or shards. Raises UsageError, ConfigError.

    A folder with .tar files is read as shards if it has no table, else as pictures with caption
    files or tables, subfolders included.
    """
    source = expanded(path)
    if not source.is_dir() and (source.suffix == ".tar" or "://" in path or path[:5] == "pipe:"):
        return read_shards(expand_shards(os.path.expanduser(path)), captions)
    if not source.exists():
        raise UsageError(f"data.path: {path} does not exist")
    if source.is_file():
        if source.suffix.lower() not in {".jsonl", ".csv"}:
            raise UsageError(
                f"data.path: {path} should be a folder, a .jsonl or .csv table, or .tar shards"
            )
        return Found(read_table(source))
    shards = sorted(source.glob("*.tar"))
    if not shards or any((source / name).is_file() for name in TABLES):
        return read_folder(source, captions)
    found = read_shards(shards, captions)
    found.note(BESIDE, pictures_below(source, found))
    return found


def held_out_batches(collection: Collection, batch_size: int) -> list[tuple[Size, list[Draw]]]:
    """The held-out pictures in order, one size per batch."""
    return [
        (group.size, [Draw(index) for index in group.held_out[k : k + batch_size]])
        for group in collection.groups
        for k in range(0, len(group.held_out), batch_size)
    ]


def describe(collection: Collection, size: Size, draws: Sequence[Draw]) -> Description:
    """Captions, indices and sizes of pictures shown at a size."""
    return {
        "captions": tuple(collection.caption(draw) for draw in draws),
        "indices": tuple(draw.index for draw in draws),
        "time_ids": tuple(collection.time_ids(draw, size) for draw in draws),
    }


def levels_of(shown: Shown) -> Tensor:
    """Decoded pictures as they are, (B, 3, H, W) uint8, the channels of a pixel side by side."""
    import torch

    width, height = shown.size
    levels = torch.frombuffer(bytearray().join(shown.pixels), dtype=torch.uint8)
    return levels.view(len(shown.pixels), height, width, 3).permute(0, 3, 1, 2)


def as_pixels(levels: Tensor) -> Tensor:
    """Levels (B, 3, H, W) uint8 as float32 in [-1, 1], on their device.

    A CPU takes 0.8 ms for a picture of 256 x 256: a GPU's pictures are converted there.
    """
    return levels.contiguous().float().div_(127.5).sub_(1.0)


def _usable(found: Found, recipe: DataRecipe) -> tuple[tuple[Entry, ...], tuple[Probe, ...]]:
    """The pictures that can be read, and what their headers say; the others are noted by reason."""
    cache = expanded(recipe.cache) if recipe.cache else None
    probes = probe_all(found.entries, cache)
    for entry, p in zip(found.entries, probes, strict=True):
        found.note(p.problem, [entry.name] if p.problem else [])
    if TEXT in found.notes:
        raise ConfigError(
            f"{recipe.path}: {TEXT}, in {some(found.notes[TEXT])}; remove them or get them again"
        )
    kept = [(entry, p) for entry, p in zip(found.entries, probes, strict=True) if p.size]
    if not kept:
        problems = dict.fromkeys(p.problem for p in probes)
        reasons = "; ".join(f"{about}: {listed(found.notes[about])}" for about in problems)
        raise ConfigError(f"{recipe.path}: not one picture can be read: {reasons}")
    entries = (replace(e, captions=e.captions or _default(recipe)) for e, _ in kept)
    return tuple(entries), tuple(p for _, p in kept)


def _default(recipe: DataRecipe) -> tuple[str, ...]:
    return () if recipe.caption is None else (recipe.caption,)


def _groups(
    recipe: DataRecipe, entries: Sequence[Entry], dimensions: Sequence[Size]
) -> tuple[Group, ...]:
    sizes = bucket_sizes(recipe.shape, recipe.bucket_step) if recipe.buckets else (recipe.shape,)
    held_out = _held_out(recipe.validation, entries)
    members: dict[Size, list[int]] = {}
    for index, original in enumerate(dimensions):
        size = nearest_bucket(original, sizes)
        if recipe.buckets and not recipe.enlarge:
            size = unenlarged(original, size, recipe.bucket_step)
        members.setdefault(size, []).append(index)
    return tuple(
        Group(
            size,
            tuple(i for i in members[size] if i not in held_out),
            tuple(i for i in members[size] if i in held_out),
        )
        for size in sorted(members, key=lambda size: (size[0] / size[1], size))
    )


def _held_out(amount: float, entries: Sequence[Entry]) -> set[int]:
    """A fixed choice by the hash of the name: more data keeps most of it."""
    count = int(amount * len(entries)) if amount < 1 else int(amount)
    if count >= len(entries):
        raise UsageError(
            f"data.validation holds out {count} of {len(entries)} pictures; none are left to train"
        )
    hashes = [hashlib.blake2b(os.fsencode(entry.name)).digest() for entry in entries]
    return set(sorted(range(len(entries)), key=lambda i: hashes[i])[:count])


def _report(collection: Collection, tokenizer: Tokenizer | None) -> DataReport:
    groups, entries = collection.groups, collection.entries
    captions = [(entry.name, caption) for entry in entries for caption in entry.captions]
    scales = [
        (entries[i].name, place(collection.dimensions[i], group.size).scale)
        for group in groups
        for i in (*group.members, *group.held_out)
    ]
    return DataReport(
        pictures=sum(len(group.members) for group in groups),
        held_out=sum(len(group.held_out) for group in groups),
        captions=len(captions),
        long_captions=tuple(n for n, c in captions if tokenizer and tokenizer.encode(c).cut),
        enlarged=tuple(sorted(name for name, scale in scales if scale < 1)),
        sizes=tuple((g.size, len(g.members) + len(g.held_out)) for g in groups),
    )


def _fingerprint(entries: Sequence[Entry], probes: Sequence[Probe]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for entry, p in zip(entries, probes, strict=True):
        digest.update(repr((entry.name, p.digest, entry.captions)).encode())
    return digest.hexdigest()
