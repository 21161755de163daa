"""Decode batches in order, here or in worker processes that never outlive the training.

A worker is a Python process that computes every n-th batch and writes it to its standard output;
the pipe blocks it when it is ahead. It runs in a session of its own, away from the terminal's
Ctrl-C, and ends at its first write to a closed pipe: also after `kill -9` of the training.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from diffgen.errors import ConfigError, DiffgenError
from diffgen.pictures.opening import DamagedPicture
from diffgen.train.buckets import TimeIds, place
from diffgen.train.data.order import BatchOrder, Draw, Variation
from diffgen.train.data.pictures import Entry, decode
from diffgen.types import Size


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures, by ascending index, that become batches of one size."""

    size: Size
    members: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """All usable pictures, their groups and how they are varied."""

    entries: tuple[Entry, ...]
    dimensions: tuple[Size, ...]  # upright, before cropping
    groups: tuple[Group, ...]
    variation: Variation
    digests: tuple[str, ...] = ()  # hashes of the pictures' bytes

    def caption(self, draw: Draw) -> str:
        """The caption drawn; empty where it was dropped or there is none."""
        captions = self.entries[draw.index].captions
        return "" if draw.dropped or not captions else captions[int(draw.caption * len(captions))]

    def time_ids(self, draw: Draw, size: Size) -> TimeIds:
        """SDXL's size conditioning for a picture shown at a size."""
        placement = place(self.dimensions[draw.index], size, x=draw.x, y=draw.y)
        return placement.time_ids(flipped=draw.flip)


@dataclass(frozen=True, slots=True)
class Shown:
    """Decoded pictures, each width * height * 3 bytes; `failed` could not be decoded."""

    size: Size
    draws: tuple[Draw, ...]
    pixels: tuple[bytes, ...]
    failed: tuple[int, ...]


class Loader(Protocol):
    """Anything that can be sent to a worker and asked for a batch by number."""

    def load(self, number: int) -> Shown: ...


@dataclass(slots=True)
class Stream:
    """The endless training stream of one rank.

    Batch `number` of all ranks together is one batch of batch_size * world pictures, dealt in
    equal runs. A picture that cannot be decoded is replaced by the next of its group, without
    being remembered, so that the stream does not depend on where it was entered.
    """

    collection: Collection
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    _order: BatchOrder = field(init=False)

    def __post_init__(self) -> None:
        groups = [group.members for group in self.collection.groups]
        self._order = BatchOrder(groups, size=self.batch_size * self.world, seed=self.seed)

    def draws(self, number: int) -> tuple[Group, list[Draw]]:
        """What this rank's batch shows, before anything is decoded."""
        group, visits = self._order.batch(number)
        mine = visits[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
        draw = self.collection.variation.draw
        return self.collection.groups[group], [draw(self.seed, i, turn) for i, turn in mine]

    def load(self, number: int) -> Shown:
        """Decode this rank's batch. Raises ConfigError if not one picture of its size can be."""
        group, draws = self.draws(number)
        return show(self.collection, group.size, draws, group.members)


@dataclass(frozen=True, slots=True)
class Listed:
    """A fixed list of batches; pictures that cannot be decoded are left out."""

    collection: Collection
    batches: Sequence[tuple[Size, Sequence[Draw]]]

    def load(self, number: int) -> Shown:
        """Decode one of them."""
        size, draws = self.batches[number]
        return show(self.collection, size, draws, ())


def show(
    collection: Collection, size: Size, draws: Sequence[Draw], substitutes: Sequence[int]
) -> Shown:
    """Decode pictures; with substitutes, each failing one is replaced by the next of them."""
    shown: list[tuple[Draw, bytes]] = []
    failed: list[int] = []
    for draw in draws:
        for index in candidates(draw.index, substitutes):
            entry = collection.entries[index]
            try:
                pixels, _ = decode(entry, size, x=draw.x, y=draw.y, flip=draw.flip)
            except DamagedPicture:
                failed.append(index)
            else:
                shown.append((replace(draw, index=index), pixels))
                break
        else:
            if substitutes:
                raise all_damaged(size)
    kept, pixels_of = zip(*shown, strict=True) if shown else ((), ())
    return Shown(size, kept, pixels_of, tuple(dict.fromkeys(failed)))


def candidates(index: int, substitutes: Sequence[int]) -> Iterator[int]:
    """A picture, then those after it in a sorted list, round to the one before it."""
    yield index
    start = bisect_left(substitutes, index) + 1
    for k in range(start, start + len(substitutes) - 1):
        yield substitutes[k % len(substitutes)]


def all_damaged(size: Size) -> ConfigError:
    """The error for a group without a single sound picture."""
    return ConfigError(f"none of the pictures for batches of {size[0]} x {size[1]} can be decoded")


def run(
    loader: Loader, *, start: int = 0, stop: int | None = None, workers: int
) -> Generator[Shown, None, None]:
    """Batches start, start + 1, ... in order, whatever the number of worker processes.

    Raises what loading raises, and DiffgenError when a worker is killed.
    """
    numbers = _numbers(start, stop)
    if not workers:
        yield from map(loader.load, numbers)
        return
    with ExitStack() as stack:
        started: list[subprocess.Popen[bytes]] = []
        for _ in range(workers):
            started.append(_start())
            stack.callback(_end, started[-1])
        for k, process in enumerate(started):
            _send(process, (loader, start + k, stop, workers))
        for number in numbers:
            yield _receive(started[(number - start) % workers])


def _numbers(start: int, stop: int | None, step: int = 1) -> Iterable[int]:
    return count(start, step) if stop is None else range(start, stop, step)


def _start() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from diffgen.train.data.loader import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )


def _send(process: subprocess.Popen[bytes], task: tuple[Loader, int, int | None, int]) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pickle.dump(task, pipe)
    except BrokenPipeError as error:
        raise _lost(process) from error


def _receive(process: subprocess.Popen[bytes]) -> Shown:
    assert process.stdout is not None
    try:
        result = pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError) as error:
        raise _lost(process) from error
    if isinstance(result, DiffgenError):
        raise result
    assert isinstance(result, Shown)
    return result


def _lost(process: subprocess.Popen[bytes]) -> DiffgenError:
    return DiffgenError(
        f"a data worker ended early (exit status {process.wait()}); if it ran out of memory, "
        "use fewer data.workers"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            pipe.close()


def serve() -> None:
    """Run a worker: read the task, then write batches until the pipe is closed."""
    loader, start, stop, step = pickle.load(sys.stdin.buffer)
    try:
        for number in _numbers(start, stop, step):
            pickle.dump(_attempt(loader, number), sys.stdout.buffer, protocol=5)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)  # an ordinary exit would try to flush once more


def _attempt(loader: Loader, number: int) -> Shown | DiffgenError:
    try:
        return loader.load(number)
    except DiffgenError as error:
        return error
