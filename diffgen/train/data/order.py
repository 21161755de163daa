"""The order of the pictures and their variations, as pure functions of the seed.

Nothing depends on earlier batches, so training can start anywhere in the stream. Only
`Random.random()` is drawn from, the one method that Python promises never to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draw:
    """A picture by index, and how it is shown. `caption`, `x` and `y` are shares in [0, 1)."""

    index: int
    caption: float = 0.0
    dropped: bool = False
    flip: bool = False
    x: float = 0.5
    y: float = 0.5


@dataclass(frozen=True, slots=True)
class Variation:
    """What may be varied each time that a picture is shown."""

    flip: bool = False
    random_crop: bool = False
    caption_dropout: float = 0.0

    def draw(self, seed: int, index: int, turn: int) -> Draw:
        """How the picture looks the turn-th time it is shown."""
        random = Random(f"{seed}:picture:{index}:{turn}").random
        caption, drop, flip, x, y = (random() for _ in range(5))
        return Draw(
            index,
            caption,
            dropped=drop < self.caption_dropout,
            flip=self.flip and flip < 0.5,
            x=x if self.random_crop else 0.5,
            y=y if self.random_crop else 0.5,
        )


class BatchOrder:
    """An endless sequence of batches, each from one group, that any batch can be asked of.

    A group is shown over and over, each turn in a new order, and its batches of `size` run across
    turns: none of its pictures is left out or shown more often than another. In epoch e a group of
    n pictures gives floor((e + 1) n / size) - floor(e n / size) batches, so the number of batches
    before an epoch is known without counting them. Batches of an epoch come in random order.
    """

    def __init__(self, groups: Sequence[Sequence[int]], *, size: int, seed: int) -> None:
        self._groups, self._size, self._seed = groups, size, seed
        self._total = sum(len(group) for group in groups)
        self._turns: list[dict[int, list[int]]] = [{} for _ in groups]
        self._epoch, self._batches = -1, list[tuple[int, int]]()

    def batch(self, number: int) -> tuple[int, list[tuple[int, int]]]:
        """The group, and (index, turn) of each picture, of a batch."""
        epoch = self._epoch_of(number)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._in_epoch(epoch)
        group, k = self._batches[number - self._before(epoch)]
        start = k * self._size
        return group, [self._visit(group, p) for p in range(start, start + self._size)]

    def _before(self, epoch: int) -> int:
        return sum(epoch * len(group) // self._size for group in self._groups)

    def _epoch_of(self, number: int) -> int:
        epoch = number * self._size // self._total  # rounding down only delays batches
        while self._before(epoch + 1) <= number:
            epoch += 1
        return epoch

    def _in_epoch(self, epoch: int) -> list[tuple[int, int]]:
        batches = [
            (i, k)
            for i, group in enumerate(self._groups)
            for k in range(epoch * len(group) // self._size, (epoch + 1) * len(group) // self._size)
        ]
        return _shuffled(batches, f"{self._seed}:epoch:{epoch}")

    def _visit(self, group: int, position: int) -> tuple[int, int]:
        turn, place = divmod(position, len(self._groups[group]))
        kept = self._turns[group]
        if turn not in kept:
            if len(kept) > 1:  # the batches of an epoch lie in two turns, or in many short ones
                del kept[min(kept)]
            order = _shuffled(range(len(self._groups[group])), f"{self._seed}:{group}:{turn}")
            kept[turn] = order
        return self._groups[group][kept[turn][place]], turn


def _shuffled(items: Sequence[T], key: str) -> list[T]:
    random = Random(key).random
    return [items[i] for _, i in sorted((random(), i) for i in range(len(items)))]
