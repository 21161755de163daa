import os
import shutil
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from training import spoil

from diffgen.errors import OutputError, UsageError
from diffgen.train.data.cache import CachedData
from diffgen.train.data.dataset import as_pixels, open_data
from diffgen.train.data.latents import LatentFiles
from diffgen.train.dist import World
from diffgen.train.recipe.recipe import DataRecipe

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


def cache_latents(data, encode, *, folder, key, source="", **options):
    cached = CachedData(data, encode, LatentFiles(folder, key))
    cached.fill(source, **options)
    return cached


def files_in(folder):
    """The latents there, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.latent")}


class Encoder:
    """Every second pixel of two channels, so that the pixels' batches predict the latents'."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, levels):
        self.pictures += len(levels)
        return as_pixels(levels)[:, :2, ::2, ::2]


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
        assert torch.equal(c.latents, Encoder()(p.levels))
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
    ("options", "key", "encoded"),
    [
        ({"size": 24}, "vae", 2 * PICTURES),
        ({"buckets": False}, "vae", 2 * 2),  # the wide ones
        ({}, "other vae", 2 * PICTURES),
        ({"flip": False}, "vae", 0),
    ],
)
def test_what_another_setting_makes_is_other_latents(folder, tmp_path, options, key, encoded):
    cache_latents(opened(folder), Encoder(), folder=tmp_path / "cache", key="vae")
    data, again = opened(folder, **options), Encoder()
    cached = cache_latents(data, again, folder=tmp_path / "cache", key=key)
    assert again.pictures == encoded
    assert_same(take(cached), take(data))


def test_captions_names_and_other_pictures_leave_a_latent_as_it_is(folder, tmp_path):
    """Only what is new is encoded, and what no picture needs any more goes."""
    cache = tmp_path / "cache"
    cache_latents(opened(folder), Encoder(), folder=cache, key="vae")
    first = files_in(cache)
    assert len(first) == 2 * PICTURES
    (folder / "05.txt").write_text("a better caption")
    (folder / "06.png").rename(folder / "other name.png")
    (folder / "06.txt").rename(folder / "other name.txt")
    again = Encoder()
    cached = cache_latents(opened(folder), again, folder=cache, key="vae")
    assert (again.pictures, files_in(cache)) == (0, first)
    assert_same(take(cached), take(opened(folder)))
    Image.effect_noise((24, 24), 60).convert("RGB").save(folder / "new.png")
    (folder / "new.txt").write_text("new")
    (folder / "04.png").unlink()
    (folder / "04.txt").unlink()
    cached = cache_latents(opened(folder), again, folder=cache, key="vae")
    assert again.pictures == 2
    after = files_in(cache)
    assert len(after) == 2 * PICTURES
    assert len(first.keys() - after.keys()) == 2
    assert_same(take(cached), take(opened(folder)))


def test_only_what_diffgen_made_is_removed_and_only_what_no_data_set_uses(folder, tmp_path):
    cache, other = tmp_path / "cache", tmp_path / "other"
    shutil.copytree(folder, other)
    Image.effect_noise((24, 24), 60).convert("RGB").save(other / "new.png")
    (other / "new.txt").write_text("new")
    former = cache / "0123456789abcdef0123456789abcdef" / "000-000001.safetensors"
    strangers = [
        cache / "mine.latent",
        cache / "latents" / "mine.latent",
        cache / "latents" / "00" / "mine.latent",
        cache / "keep" / "000-000001.safetensors",
        former.with_name("model.safetensors"),
    ]
    for path in (former, *strangers):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    left = cache / "latents" / "00" / ".0123456789ab.part.latent"
    left.write_text("cut off by kill -9")
    for place in (other, folder):
        cache_latents(opened(place), Encoder(), folder=cache, key="vae", source=str(place))
    assert all(path.read_text() == "x" for path in strangers)
    assert not former.exists()
    assert not left.exists()
    assert len(files_in(cache)) == 2 * (PICTURES + 1) + 1  # and mine, three of one name
    shutil.rmtree(other)
    (folder / "04.png").unlink()
    (folder / "04.txt").unlink()
    cache_latents(opened(folder), Encoder(), folder=cache, key="vae", source=str(folder))
    assert len(files_in(cache)) == 2 * (PICTURES - 1) + 1


@pytest.mark.parametrize("damage", ["cut", "empty", "another", "text"])
def test_a_damaged_latent_is_made_anew(folder, tmp_path, damage):
    cache = tmp_path / "cache"
    cache_latents(opened(folder), Encoder(), folder=cache, key="vae")
    whole = files_in(cache)
    path = sorted(cache.rglob("*.latent"))[3]
    content = {
        "cut": path.read_bytes()[:-40],
        "empty": b"",
        "another": save({"other": torch.zeros(3)}),
        "text": b"version https://git-lfs.github.com/spec/v1",
    }[damage]
    path.write_bytes(content)
    data, unfilled = opened(folder), Encoder()
    found = CachedData(data, unfilled, LatentFiles(cache, "vae"))
    assert "21 of 22 pictures have a latent" in found.state()
    assert_same(take(found, 30), take(data, 30))  # encoded where it is met, and not written
    assert path.read_bytes() == content
    again = Encoder()
    cached = cache_latents(data, again, folder=cache, key="vae")
    assert again.pictures == 1
    assert files_in(cache) == whole
    path.write_bytes(content)  # while the run goes on
    assert_same(take(cached, 30), take(data, 30))


def test_a_folder_that_another_run_fills_is_named_with_its_process(folder, tmp_path):
    cache = tmp_path / "cache"
    with (
        LatentFiles(cache, "vae").lock(),
        pytest.raises(OutputError, match=rf"cache is in use by process {os.getpid()}; wait"),
    ):
        cache_latents(opened(folder), Encoder(), folder=cache, key="vae")
    cache_latents(opened(folder), Encoder(), folder=cache, key="vae")
    with LatentFiles(cache, "vae").lock():  # who needs nothing waits for nobody
        cache_latents(opened(folder), Encoder(), folder=cache, key="vae")


@pytest.mark.parametrize("disks", ["shared", "own"])
def test_processes_share_the_work(folder, tmp_path, disks):
    """Three in threads: each encodes its share, and all of them find all latents."""
    barrier, slots, encoders = threading.Barrier(3), [None] * 3, [Encoder() for _ in range(3)]

    class Threads(World):
        def gather(self, value):
            slots[self.rank] = value
            barrier.wait(30)
            found = list(slots)
            barrier.wait(30)
            return found

        def wait(self):
            barrier.wait(30)

    spoil(folder / "05.png")
    places = [tmp_path / ("cache" if disks == "shared" else f"cache{rank}") for rank in range(3)]

    def process(rank):
        options = {"world": Threads(rank, 3, torch.device("cpu")), "batch_size": 2}
        data = opened(folder, validation=0.0)
        return cache_latents(data, encoders[rank], folder=places[rank], key="vae", **options)

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(process, range(3)))
    plain = take(opened(folder, validation=0.0), 30)
    assert all(cached.report.failed == ("05.png",) for cached in made)
    encoded = [encoder.pictures for encoder in encoders]
    if disks == "shared":
        assert sum(encoded) == 2 * (PICTURES - 1)
        assert min(encoded) >= 4
    assert all(len(files_in(place)) == 2 * (PICTURES - 1) for place in places)
    for cached, encoder in zip(made, encoders, strict=True):
        before = encoder.pictures
        assert_same(take(cached, 30), plain)
        assert encoder.pictures == before


def test_an_interrupted_cache_goes_on(folder, tmp_path):
    class Interrupted(Encoder):
        def __call__(self, levels):
            if self.pictures >= 8:
                raise KeyboardInterrupt
            return super().__call__(levels)

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
    assert again.pictures == 2 * PICTURES - 8
    assert seen[-1] == (22, 22)
    assert seen == sorted(seen)
    assert_same(take(cached), take(data))
    assert not list(tmp_path.rglob("*.part*"))


def test_damaged_pictures_are_replaced_as_without_a_cache(folder, tmp_path):
    spoil(folder / "05.png")
    data = opened(folder, validation=0.0)
    cached = cache_latents(data, Encoder(), folder=tmp_path / "cache", key="vae")
    assert cached.report.failed == ("05.png",)
    assert_same(take(cached, 30), take(opened(folder, validation=0.0), 30))
    fresh = opened(folder, validation=0.0)
    again = cache_latents(fresh, Encoder(), folder=tmp_path / "cache", key="vae")
    assert again.report.failed == ("05.png",)


def test_random_crops_cannot_be_cached(folder, tmp_path):
    with pytest.raises(UsageError, match=r'data\.crop = "centre"'):
        cache_latents(opened(folder, crop="random"), Encoder(), folder=tmp_path, key="vae")


def test_too_little_disk_is_said_before_the_work(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 9_000))
    encoder = Encoder()
    # 22 pictures of 2 x 8 x 8 floats, each a block of 4 KB at least.
    with pytest.raises(OutputError, match=r"needs 0\.09 MB and the disk has 0\.01 MB left"):
        cache_latents(opened(folder), encoder, folder=tmp_path / "cache", key="vae", batch_size=1)
    assert encoder.pictures == 1
    assert not files_in(tmp_path / "cache")


def test_a_full_disk_leaves_nothing_half_written(folder, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        cache_latents(opened(folder), Encoder(), folder=tmp_path / "cache", key="vae")
    assert not files_in(tmp_path / "cache")


def test_a_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot work in .*cache: File exists"):
        cache_latents(opened(folder), Encoder(), folder=tmp_path / "cache", key="vae")


def test_what_is_kept_in_memory_is_read_once(folder, tmp_path):
    files, data = LatentFiles(tmp_path, "v"), opened(folder)
    cache_latents(data, Encoder(), folder=tmp_path, key="v")
    size = Encoder()(next(iter(opened(folder).validation(1))).levels).nbytes
    plain = take(CachedData(data, Encoder(), files), 60)
    for latents in (0, 2, 1000):  # room for so many
        cached = CachedData(data, Encoder(), files, memory=latents * size)
        first = take(cached, 60)
        for path in tmp_path.rglob("*.latent"):
            path.rename(path.with_suffix(".away"))
        again = Encoder()
        cached._encode = again
        second = take(cached, 60)
        for path in tmp_path.rglob("*.away"):
            path.rename(path.with_suffix(".latent"))
        for one, two, three in zip(plain, first, second, strict=True):
            assert torch.equal(one.latents, two.latents)
            assert torch.equal(one.latents, three.latents)
        assert (again.pictures == 0) == (latents == 1000)
