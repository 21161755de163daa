"""Training data: pictures with captions from any of four layouts, as a reproducible stream.

Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from diffgen.errors import ConfigError, UsageError
from diffgen.text.tokenizer import Tokenizer
from diffgen.train.buckets import Size, TimeIds, bucket_sizes, nearest_bucket, place
from diffgen.train.captions import check_captioned, read_folder, read_table, some
from diffgen.train.headers import probe_all
from diffgen.train.loader import Collection, Group, Listed, Shown, Stream, run
from diffgen.train.order import Draw, Variation
from diffgen.train.pictures import Entry, Probe
from diffgen.train.recipe import DataRecipe
from diffgen.train.shards import expand_shards, read_shards

if TYPE_CHECKING:
    from torch import Tensor

TABLES = ("metadata.jsonl", "captions.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pictures of one size and their captions; either pixels or cached latents.

    A caption is empty where caption dropout struck. `time_ids` is SDXL's size conditioning:
    original height and width, crop top and left, target height and width.
    """

    pixels: Tensor | None = None  # (B, 3, H, W) float32 in [-1, 1]
    latents: Tensor | None = None  # (B, C, h, w) float32
    captions: tuple[str, ...]
    indices: tuple[int, ...]
    time_ids: tuple[TimeIds, ...]


class Description(TypedDict):
    """What a batch says about its pictures."""

    captions: tuple[str, ...]
    indices: tuple[int, ...]
    time_ids: tuple[TimeIds, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What was found. `skipped` names the damaged pictures met so far.

    `fingerprint` is a hash of the usable pictures' names, bytes and captions; it does not depend
    on where they lie. `enlarged` pictures are smaller than what they are trained at.
    """

    pictures: int
    held_out: int
    captions: int
    long_captions: int
    enlarged: int
    skipped: tuple[str, ...]
    sizes: tuple[tuple[Size, int], ...]  # (width, height) and the number of pictures
    fingerprint: str


class TrainingData:
    """Pictures to learn from, and held-out ones."""

    def __init__(self, collection: Collection, report: DataReport) -> None:
        self.collection = collection
        self._report = report
        self._failed: dict[str, None] = {}

    @property
    def report(self) -> DataReport:
        """Counts and names; pictures found damaged while decoding are added as they are met."""
        return replace(
            self._report, skipped=tuple(dict.fromkeys([*self._report.skipped, *self._failed]))
        )

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
        self._failed |= dict.fromkeys(self.collection.entries[i].name for i in indices)

    def _batch(self, shown: Shown) -> Batch:
        self.mark_damaged(shown.failed)
        return Batch(pixels=to_pixels(shown), **describe(self.collection, shown.size, shown.draws))


def open_data(
    recipe: DataRecipe, *, tokenizer: Tokenizer | None = None, captioned: bool = True
) -> TrainingData:
    """Find the pictures, read every header, and decide on sizes and on what is held out.

    With a tokenizer, captions that it would cut are counted. `captioned=False` allows pictures
    without captions. With a cache folder, headers are read once and remembered there. Raises
    UsageError and ConfigError for data that cannot be trained on.
    """
    found = find_entries(recipe.path)
    if not found:
        raise UsageError(f"data.path: no pictures found in {recipe.path}.")
    entries, probes, skipped = _usable(found, recipe.path, recipe.cache)
    if captioned:
        check_captioned(entries, recipe.path)
    dimensions = tuple(p.size for p in probes if p.size)
    collection = Collection(
        entries=entries,
        dimensions=dimensions,
        groups=_groups(recipe, entries, dimensions),
        variation=Variation(recipe.flip, recipe.crop == "random", recipe.caption_dropout),
    )
    report = _report(collection, tokenizer)
    fingerprint = _fingerprint(entries, probes)
    return TrainingData(collection, replace(report, skipped=skipped, fingerprint=fingerprint))


def find_entries(path: str) -> list[Entry]:
    """The pictures behind a path: a folder, a table, or shards. Raises UsageError, ConfigError.

    A folder is read by its metadata.jsonl or captions.csv, else as tar shards if it has any, else
    as pictures with caption files, subfolders included.
    """
    source = Path(path).expanduser()
    if source.suffix == ".tar" or "://" in path or path.startswith("pipe:"):
        return read_shards(expand_shards(os.path.expanduser(path)))
    if not source.exists():
        raise UsageError(f"data.path: {path} does not exist.")
    if source.is_file():
        if source.suffix.lower() not in {".jsonl", ".csv"}:
            raise UsageError(
                f"data.path: {path} should be a folder, a .jsonl or .csv table, or .tar shards."
            )
        return read_table(source)
    tables = [source / name for name in TABLES if (source / name).is_file()]
    if len(tables) > 1:
        raise UsageError(f"data.path: {path} holds {' and '.join(TABLES)}; give the one to use.")
    if tables:
        return read_table(tables[0])
    shards = sorted(source.glob("*.tar"))
    return read_shards(shards) if shards else read_folder(source)


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


def to_pixels(shown: Shown) -> Tensor:
    """Decoded pictures as (B, 3, H, W) float32 in [-1, 1]."""
    import torch

    width, height = shown.size
    levels = torch.frombuffer(bytearray(b"".join(shown.pixels)), dtype=torch.uint8)
    rows = levels.view(len(shown.pixels), height, width, 3)
    return rows.permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def _usable(
    found: Sequence[Entry], where: str, cache: str | None
) -> tuple[tuple[Entry, ...], tuple[Probe, ...], tuple[str, ...]]:
    """The pictures with a sound header, what it says, and the names of the others."""
    probes = probe_all(found, Path(cache).expanduser() if cache else None)
    texts = [entry.name for entry, p in zip(found, probes, strict=True) if p.is_text]
    if texts:
        raise ConfigError(
            f"{where}: text, not pictures, in {some(texts)}; remove them or get them again."
        )
    skipped = tuple(entry.name for entry, p in zip(found, probes, strict=True) if not p.size)
    if len(skipped) == len(found):
        raise ConfigError(f"{where}: not one picture can be read: {some(skipped)}.")
    kept = [(entry, p) for entry, p in zip(found, probes, strict=True) if p.size]
    return tuple(entry for entry, _ in kept), tuple(p for _, p in kept), skipped


def _groups(
    recipe: DataRecipe, entries: Sequence[Entry], dimensions: Sequence[Size]
) -> tuple[Group, ...]:
    sizes = bucket_sizes(recipe.shape, recipe.bucket_step) if recipe.buckets else (recipe.shape,)
    held_out = _held_out(recipe.validation, entries)
    members: dict[Size, list[int]] = {}
    for index, original in enumerate(dimensions):
        members.setdefault(nearest_bucket(original, sizes), []).append(index)
    return tuple(
        Group(
            size,
            tuple(i for i in members[size] if i not in held_out),
            tuple(i for i in members[size] if i in held_out),
        )
        for size in sizes
        if size in members
    )


def _held_out(amount: float, entries: Sequence[Entry]) -> set[int]:
    """A fixed choice by the hash of the name: more data keeps most of it."""
    count = int(amount * len(entries)) if amount < 1 else int(amount)
    if count >= len(entries):
        raise UsageError(
            f"data.validation holds out {count} of {len(entries)} pictures; none are left to train."
        )
    hashes = [hashlib.blake2b(entry.name.encode()).digest() for entry in entries]
    return set(sorted(range(len(entries)), key=lambda i: hashes[i])[:count])


def _report(collection: Collection, tokenizer: Tokenizer | None) -> DataReport:
    groups = collection.groups
    captions = [caption for entry in collection.entries for caption in entry.captions]
    placed = [
        place(collection.dimensions[i], group.size)
        for group in groups
        for i in (*group.members, *group.held_out)
    ]
    return DataReport(
        pictures=sum(len(group.members) for group in groups),
        held_out=sum(len(group.held_out) for group in groups),
        captions=len(captions),
        long_captions=sum(bool(tokenizer.encode(c).cut) for c in captions) if tokenizer else 0,
        enlarged=sum(p.scale < 1 for p in placed),
        skipped=(),
        sizes=tuple((g.size, len(g.members) + len(g.held_out)) for g in groups),
        fingerprint="",
    )


def _fingerprint(entries: Sequence[Entry], probes: Sequence[Probe]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for entry, p in zip(entries, probes, strict=True):
        digest.update(repr((entry.name, p.digest, entry.captions)).encode())
    return digest.hexdigest()
