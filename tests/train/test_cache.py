import shutil
from collections import namedtuple
from itertools import islice

import pytest
import torch
from PIL import Image
from training import spoil

from diffgen.errors import OutputError, UsageError
from diffgen.train import cache
from diffgen.train.cache import cache_latents
from diffgen.train.data import open_data
from diffgen.train.recipe import DataRecipe

PICTURES = 11


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(PICTURES):
        size = (48, 16) if k in (3, 7) else (24, 24)
        Image.effect_noise(size, 60).convert("RGB").save(pictures / f"{k:02}.png")
        (pictures / f"{k:02}.txt").write_text(f"picture {k}\nnumber {k}\n")
    return pictures


class Encoder:
    """Every second pixel of two channels, so that the pixels' batches predict the latents'."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, pixels):
        self.pictures += len(pixels)
        return pixels[:, :2, ::2, ::2]


def opened(folder, **options):
    defaults = {"size": 16, "bucket_step": 8, "buckets": True, "flip": True, "validation": 3}
    return open_data(DataRecipe(path=str(folder), **(defaults | options)))


def take(data, count=12, **options):
    defaults = {"batch_size": 2, "seed": 1, "rank": 0, "world": 1}
    return list(islice(data.batches(**(defaults | options)), count))


def assert_same(cached, plain):
    assert len(cached) == len(plain)
    for c, p in zip(cached, plain, strict=True):
        assert (c.captions, c.indices, c.time_ids) == (p.captions, p.indices, p.time_ids)
        assert torch.equal(c.latents, Encoder()(p.pixels))
        assert c.pixels is None


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_the_same_with_latents_for_pixels(folder, tmp_path, workers):
    data = opened(folder)
    encoder = Encoder()
    cached = cache_latents(
        data, encoder, folder=tmp_path / "cache", key="vae", batch_size=4, workers=workers
    )
    assert encoder.pictures == 2 * PICTURES  # and mirrored
    assert_same(take(cached), take(data))
    assert_same(take(cached, start=30, rank=1, world=2), take(data, start=30, rank=1, world=2))
    assert_same(list(cached.validation(2)), list(data.validation(2)))
    assert cached.report == data.report


def test_a_cache_is_made_once(folder, tmp_path):
    cache_latents(opened(folder), Encoder(), folder=tmp_path, key="vae")
    again = Encoder()
    # A different split, dropout and batch size need no other latents.
    options = {"validation": 0.0, "caption_dropout": 0.5}
    cached = cache_latents(
        opened(folder, **options), again, folder=tmp_path, key="vae", batch_size=3
    )
    assert again.pictures == 0
    assert_same(take(cached), take(opened(folder, **options)))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"size": 24}, "vae"),
        ({"buckets": False}, "vae"),
        ({}, "other vae"),
        ({"flip": False}, "vae"),
    ],
)
def test_another_setting_is_another_cache(folder, tmp_path, options, key):
    cache_latents(opened(folder), Encoder(), folder=tmp_path, key="vae")
    again = Encoder()
    cache_latents(opened(folder, **options), again, folder=tmp_path, key=key)
    assert again.pictures == PICTURES * (1 if "flip" in options else 2)


def test_other_pictures_are_another_cache(folder, tmp_path):
    cache_latents(opened(folder), Encoder(), folder=tmp_path / "cache", key="vae")
    Image.effect_noise((24, 24), 60).convert("RGB").save(folder / "05.png")
    data, again = opened(folder), Encoder()
    cached = cache_latents(data, again, folder=tmp_path / "cache", key="vae")
    assert again.pictures == 2 * PICTURES
    assert_same(take(cached), take(data))


def test_an_interrupted_cache_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PER_FILE", 3)

    class Interrupted(Encoder):
        def __call__(self, pixels):
            if self.pictures >= 8:
                raise KeyboardInterrupt
            return super().__call__(pixels)

    with pytest.raises(KeyboardInterrupt):
        cache_latents(
            opened(folder), Interrupted(), folder=tmp_path / "cache", key="v", batch_size=1
        )
    again, data, seen = Encoder(), opened(folder), []
    cached = cache_latents(
        data,
        again,
        folder=tmp_path / "cache",
        key="v",
        batch_size=5,
        on_progress=lambda *progress: seen.append(progress),
    )
    assert again.pictures == 2 * PICTURES - 6  # one whole file had been written
    assert seen[-1] == (22, 22)
    assert seen == sorted(seen)
    assert_same(take(cached), take(data))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("whole_file", [False, True])
def test_damaged_pictures_are_replaced_as_without_a_cache(
    folder, tmp_path, monkeypatch, whole_file
):
    monkeypatch.setattr(cache, "PER_FILE", 1 if whole_file else 512)
    spoil(folder / "05.png")
    data = opened(folder, validation=0.0)
    cached = cache_latents(data, Encoder(), folder=tmp_path / "cache", key="vae")
    assert cached.report.failed == ("05.png",)
    assert_same(take(cached, 30), take(opened(folder, validation=0.0), 30))
    fresh = opened(folder, validation=0.0)
    again = cache_latents(fresh, Encoder(), folder=tmp_path / "cache", key="vae")
    assert again.report.failed == ("05.png",)  # remembered with the latents


def test_random_crops_cannot_be_cached(folder, tmp_path):
    with pytest.raises(UsageError, match=r'data\.crop = "centre"'):
        cache_latents(opened(folder, crop="random"), Encoder(), folder=tmp_path, key="vae")


def test_too_little_disk_is_said_before_the_work(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 9_000))
    encoder = Encoder()
    # 22 pictures of 2 x 8 x 8 floats are 11 KB.
    with pytest.raises(OutputError, match=r"needs 0\.01 MB and the disk has 0\.01 MB left"):
        cache_latents(opened(folder), encoder, folder=tmp_path / "cache", key="vae", batch_size=1)
    assert encoder.pictures == 1
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_a_full_disk_leaves_nothing_half_written(folder, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        cache_latents(opened(folder), Encoder(), folder=tmp_path / "cache", key="vae")
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_a_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match="cannot be made"):
        cache_latents(opened(folder), Encoder(), folder=tmp_path / "cache", key="vae")
