"""Shards read back as the scenes and pictures they were drawn from."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from scripts.storybook.draw import draw
from scripts.storybook.scene import Group, Scene, world
from scripts.storybook.shelf import Shelf
from scripts.storybook.stream import SceneStream
from scripts.storybook.verifier import BATCH, Vocabulary, shelved

MEDIUM = world("medium", own_only=True)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> SceneStream:
    return SceneStream(MEDIUM, 32, 3, tmp_path_factory.mktemp("no artwork"))


def test_a_shelf_holds_what_was_drawn(stream: SceneStream, tmp_path: Path) -> None:
    draw(stream, range(5, 11), tmp_path, kind="shards", workers=1)
    shelf = Shelf.read(tmp_path, 32)
    drawn = [stream.example(index) for index in range(5, 11)]
    assert shelf.scenes == tuple(example.scene for example in drawn)
    assert np.array_equal(shelf.pixels, [example.picture for example in drawn])
    assert Shelf.read(tmp_path, 16).pixels.shape == (6, 16, 16, 3)


def test_an_empty_folder_is_no_shelf(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.tar shards"):
        Shelf.read(tmp_path, 32)


def test_batches_have_the_labels_of_their_pictures() -> None:
    night = Scene((Group("barn", "red"),), "snow", "night")
    day = Scene((Group("barn", "red"),), "snow", "day")
    dark, bright = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 230, np.uint8)
    shelf = Shelf(np.stack([dark, bright] * BATCH), (night, day) * BATCH)
    vocabulary = Vocabulary.of(MEDIUM)
    pictures, labels = next(shelved(shelf, vocabulary, seed=1))
    assert pictures.shape == (BATCH, 3, 32, 32)
    is_day = labels["time"] == vocabulary.times.index("day")
    assert torch.equal(pictures.mean((1, 2, 3)) > 0, is_day)
    assert 0 < int(is_day.sum()) < BATCH


def test_a_shelf_smaller_than_a_batch_is_one(stream: SceneStream) -> None:
    examples = [stream.example(index) for index in range(3)]
    shelf = Shelf(np.stack([e.picture for e in examples]), tuple(e.scene for e in examples))
    pictures, labels = next(shelved(shelf, Vocabulary.of(MEDIUM), seed=1))
    assert len(pictures) == len(labels["time"]) == 3
