"""An endless stream of painted scenes, for training without files on disk."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.types import Size
from scripts.storybook.artwork import default_cache
from scripts.storybook.captions import captions
from scripts.storybook.paint import paint
from scripts.storybook.scene import Scene, World, sample


@dataclass(frozen=True, slots=True)
class Example:
    """A picture, (height, width, 3) uint8, with its scene and captions."""

    picture: NDArray[np.uint8]
    scene: Scene
    captions: list[str]


@dataclass(frozen=True, slots=True)
class SceneStream:
    """Scenes of a world by index: `stream.example(7)` is the same picture on every machine.

    size: side of square pictures, in pixels. shapes: (width, height) of pictures, in turn, instead.
    also: worlds that take turns with the first, each for all shapes.
    """

    world: World
    size: int = 128
    seed: int = 0
    cache_dir: Path = field(default_factory=default_cache)
    shapes: tuple[Size, ...] = ()
    also: tuple[World, ...] = ()

    def example(self, index: int) -> Example:
        """Scene number `index`, painted and captioned."""
        worlds = (self.world, *self.also)
        where = worlds[index // max(1, len(self.shapes)) % len(worlds)]
        scene = sample(where, self.seed, index)
        shape = self.shapes[index % len(self.shapes)] if self.shapes else (self.size, self.size)
        return Example(paint(scene, shape, self.cache_dir), scene, captions(scene))

    def batches(
        self, batch: int, *, worker: int = 0, workers: int = 1
    ) -> Iterator[tuple[NDArray[np.float32], list[Example]]]:
        """Endless batches, (batch, 3, size, size) float32 in -1 to 1, with their examples.

        Worker k of n draws batches k, k + n, ... so that all of them together draw each index once.
        """
        for number in count(worker, workers):
            examples = [self.example(number * batch + i) for i in range(batch)]
            pixels = np.stack([e.picture for e in examples]).transpose(0, 3, 1, 2)
            yield pixels.astype(np.float32) / 127.5 - 1, examples
