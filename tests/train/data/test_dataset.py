import io
import os
import random
import tarfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from training import spoil

from diffgen.errors import ConfigError, UsageError
from diffgen.pictures.opening import DAMAGED
from diffgen.text.tokenizer import Tokenizer
from diffgen.train.data.captions import LINES
from diffgen.train.data.dataset import BESIDE, open_data
from diffgen.train.data.report import CUT, ENLARGED
from diffgen.train.recipe.recipe import DataRecipe

VOCABULARY = Path(__file__).parents[2] / "vocabulary"
PICTURES = 13


def level_of(index):
    return 10 * index + 5


@pytest.fixture
def folder(tmp_path):
    """Pictures of one grey level each, so that a batch tells which it shows; two are wide."""
    for k in range(PICTURES):
        size = (48, 16) if k in (3, 7) else (24, 24)
        Image.new("RGB", size, (level_of(k),) * 3).save(tmp_path / f"{k:02}.png")
        (tmp_path / f"{k:02}.txt").write_text(f"picture {k}\nnumber {k}\n")
    return tmp_path


def recipe(folder, **options):
    defaults = {"size": 16, "validation": 0.0, "bucket_step": 8}
    return DataRecipe(path=str(folder), **(defaults | options))


def take(data, count, **options):
    defaults = {"batch_size": 4, "seed": 1, "rank": 0, "world": 1}
    return list(islice(data.batches(**(defaults | options)), count))


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.captions, a.indices, a.time_ids) == (b.captions, b.indices, b.time_ids)
        assert torch.equal(a.pixels, b.pixels)


VARIED = {"flip": True, "crop": "random", "buckets": True, "caption_dropout": 0.3}


def test_a_batch_shows_the_pictures_it_names(folder):
    for batch in take(open_data(recipe(folder, caption_dropout=0.0)), 5):
        assert batch.pixels.shape == (4, 3, 16, 16)
        assert batch.pixels.dtype == torch.float32
        for pixels, index, caption in zip(batch.pixels, batch.indices, batch.captions, strict=True):
            torch.testing.assert_close(pixels, torch.full((3, 16, 16), level_of(index) / 127.5 - 1))
            assert caption in (f"picture {index}", f"number {index}")
    assert batch.latents is None


def test_both_captions_and_none_occur(folder):
    batches = take(open_data(recipe(folder, caption_dropout=0.3)), 60)
    captions = [caption for batch in batches for caption in batch.captions]
    # Three standard deviations of a share of 240 draws are 0.09.
    assert captions.count("") / 240 == pytest.approx(0.3, abs=0.09)
    assert sum(c.startswith("picture") for c in captions) / 240 == pytest.approx(0.35, abs=0.09)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(folder, workers):
    data = open_data(recipe(folder, **VARIED))
    assert_same(take(data, 9, workers=workers), take(data, 9))


@pytest.mark.parametrize("start", [1, 6, 23])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_can_be_entered_anywhere(folder, start, workers):
    data = open_data(recipe(folder, **VARIED))
    expected = take(data, 27)[start:]
    assert_same(
        take(open_data(recipe(folder, **VARIED)), 27 - start, start=start, workers=workers),
        expected,
    )


@pytest.mark.parametrize("buckets", [False, True])
def test_ranks_together_see_what_one_process_sees(folder, buckets):
    data = open_data(recipe(folder, **(VARIED | {"buckets": buckets})))
    whole = take(data, 8, batch_size=4)
    ranks = [take(data, 8, batch_size=2, rank=rank, world=2) for rank in range(2)]
    for step, *shares in zip(whole, *ranks, strict=True):
        assert torch.equal(step.pixels, torch.cat([share.pixels for share in shares]))
        assert step.captions == shares[0].captions + shares[1].captions
        assert step.indices == shares[0].indices + shares[1].indices


def test_skipped_batches_are_not_decoded(folder, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "diffgen.train.data.loader.decode",
        lambda entry, size, **_: (decoded.append(entry), (bytes(3 * size[0] * size[1]), None))[1],
    )
    take(open_data(recipe(folder)), 1, start=1000)
    assert len(decoded) == 4


def test_the_seed_decides(folder):
    data = open_data(recipe(folder))
    assert take(data, 3, seed=1)[0].indices != take(data, 3, seed=2)[0].indices


def test_buckets(folder):
    data = open_data(recipe(folder, buckets=True))
    assert dict(data.report.sizes) == {(16, 16): 11, (32, 8): 2}
    shapes = {tuple(batch.pixels.shape[2:]) for batch in take(data, 13)}
    assert shapes == {(16, 16), (8, 32)}


def test_small_pictures_make_buckets_of_their_own_where_nothing_is_enlarged(folder):
    data = open_data(recipe(folder, buckets=True, size=32, enlarge=False))
    assert dict(data.report.sizes) == {(24, 24): 11, (48, 16): 2}
    assert not data.report.enlarged
    shapes = {tuple(batch.pixels.shape[2:]) for batch in take(data, 13)}
    assert shapes == {(24, 24), (16, 48)}


def test_validation_is_fixed_and_never_trained_on(folder):
    data = open_data(recipe(folder, validation=4, **VARIED))
    batches = list(data.validation(3))
    held_out = [index for batch in batches for index in batch.indices]
    assert len(held_out) == len(set(held_out)) == data.report.held_out == 4
    assert all(
        caption == f"picture {i}"
        for b in batches
        for i, caption in zip(b.indices, b.captions, strict=True)
    )
    trained = {index for batch in take(data, 30) for index in batch.indices}
    assert trained == set(range(PICTURES)) - set(held_out)
    assert_same(batches, list(open_data(recipe(folder, validation=4, **VARIED)).validation(3)))


def test_a_share_for_validation_is_rounded_down(folder):
    assert open_data(recipe(folder, validation=0.02)).report.held_out == 0
    assert open_data(recipe(folder, validation=0.2)).report.held_out == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_pictures_are_replaced_and_named(folder, workers, caplog):
    (folder / "01.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # seen at once
    spoil(folder / "05.png")  # seen when it is decoded
    data = open_data(recipe(folder, caption_dropout=0.0))
    assert dict(data.report.notes)[DAMAGED] == ("01.png",)
    assert (data.report.pictures, data.report.failed) == (12, ())
    batches = take(data, 12, workers=workers)
    assert (data.report.pictures, data.report.failed) == (11, ("05.png",))
    assert [r.getMessage().split(" is damaged")[0] for r in caplog.records] == ["05.png"]
    shown = [caption for batch in batches for caption in batch.captions]
    assert not [c for c in shown if c.endswith((" 1", " 5"))]
    assert sum(c.endswith(" 6") for c in shown) == 8  # its own turns, and those of number 5
    assert_same(take(open_data(recipe(folder, caption_dropout=0.0)), 5, start=7), batches[7:])


def test_damaged_pictures_are_left_out_of_validation(folder):
    data = open_data(recipe(folder, validation=6))
    first = next(data.validation(6)).indices[0]
    spoil(folder / f"{first:02}.png")
    assert len(next(data.validation(6)).indices) == 5
    assert (data.report.pictures, len(data.report.failed)) == (PICTURES - 6, 1)


def test_ten_damaged_pictures_are_named_and_the_rest_announced(folder, caplog):
    for k in range(12):
        spoil(folder / f"{k:02}.png")
    data = open_data(recipe(folder))
    take(data, 12)
    assert len(data.report.failed) == 12
    assert [r.getMessage().startswith("more damaged") for r in caplog.records] == [False] * 10 + [
        True
    ]


def test_nothing_but_damaged_pictures(tmp_path):
    for k in range(2):
        spoil(tmp_path / f"{k}.png")
        (tmp_path / f"{k}.txt").write_text("x")
    data = open_data(recipe(tmp_path))
    for workers in (0, 1):
        with pytest.raises(ConfigError, match="none of the pictures for batches of 16 x 16"):
            take(data, 1, workers=workers)


def test_the_report(folder):
    (folder / "02.txt").write_text("cat " * 100)
    tokenizer = Tokenizer.from_folder(VOCABULARY)
    report = open_data(recipe(folder, size=20), tokenizer=tokenizer).report
    assert (report.pictures, report.captions) == (13, 25)
    assert report.long_captions == ("02.png",)
    assert report.enlarged == ("03.png", "07.png")  # the wide ones have only 16 rows
    assert report.remarks[CUT] == "1 (02.png)"
    assert report.remarks[ENLARGED] == "2 (03.png, 07.png)"


def test_the_fingerprint_is_of_the_contents(folder, tmp_path_factory):
    print_of = lambda path: open_data(recipe(path)).report.fingerprint  # noqa: E731
    first = print_of(folder)
    moved = tmp_path_factory.mktemp("moved")
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert print_of(moved) == first
    (moved / "02.txt").write_text("other words")
    changed = print_of(moved)
    assert changed != first
    Image.new("RGB", (24, 24), (1, 2, 3)).save(moved / "03.png")
    assert print_of(moved) not in (first, changed)


def test_all_layouts_read_the_same(folder, tmp_path_factory):
    pytest.importorskip("webdataset")
    tables = tmp_path_factory.mktemp("tables")
    rows = ["file_name,text"]
    for k in range(PICTURES):
        (tables / f"{k:02}.png").write_bytes((folder / f"{k:02}.png").read_bytes())
        rows += [f"{k:02}.png,picture {k}", f"{k:02}.png,number {k}"]
    (tables / "captions.csv").write_text("\n".join(rows))
    shards = tmp_path_factory.mktemp("shards")
    with tarfile.open(shards / "p.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    expected = take(open_data(recipe(folder)), 6)
    for path in (tables, tables / "captions.csv", shards, shards / "p.tar"):
        assert_same(take(open_data(recipe(path)), 6, workers=1), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: None, None, ""),
        (lambda f: (f / "04.txt").unlink(), ConfigError, r"no caption for 1 file \(04.png\)"),
        (
            lambda f: (f / "04.png").write_text("<html>404</html>"),
            ConfigError,
            r"text, not pictures, in 1 file \(04.png\)",
        ),
        (lambda f: [p.unlink() for p in f.iterdir()], UsageError, "no pictures found"),
        (lambda f: [p.write_bytes(b"\0") for p in f.glob("*.png")], ConfigError, "not one picture"),
        (
            lambda f: [(f / n).write_text("") for n in ("metadata.jsonl", "captions.csv")],
            UsageError,
            "holds",
        ),
        (lambda f: (f / "p.tar").write_text("no"), ConfigError, "not an uncompressed tar"),
    ],
)
def test_bad_folders(folder, change, error, message):
    change(folder)
    if error is None:
        assert open_data(recipe(folder)).report.pictures == PICTURES
        return
    with pytest.raises(error, match=message) as caught:
        open_data(recipe(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, "nowhere does not exist"),
        ({"path": __file__}, "should be a folder"),
        ({"validation": 13}, "holds out 13 of 13"),
        ({"buckets": True, "bucket_step": 64}, "bucket_step 64 is too large"),
    ],
)
def test_bad_recipes(folder, options, message):
    with pytest.raises(UsageError, match=message):
        open_data(replace(recipe(folder), **options))


def test_captions_can_be_done_without(folder):
    (folder / "04.txt").unlink()
    data = open_data(recipe(folder), captioned=False)
    batch = next(b for b in take(data, 9) if 4 in b.indices)
    assert batch.captions[batch.indices.index(4)] == ""


def test_flips_and_crops_move_pixels(tmp_path):
    image = Image.linear_gradient("L").rotate(90).resize((64, 16))  # brightness runs sideways
    image.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a")
    data = open_data(recipe(tmp_path, flip=True, crop="random"))
    pixels = torch.cat([batch.pixels for batch in take(data, 8)])
    slope = pixels[:, 0, 8, -1] - pixels[:, 0, 8, 0]
    assert (slope > 0).any()
    assert (slope < 0).any()
    assert pixels.mean((1, 2, 3)).std() > 0.05  # other parts of the gradient


def test_random_bytes_never_stop_the_reading(tmp_path):
    file = io.BytesIO()
    noisy = Image.effect_noise((32, 32), 60)
    noisy.save(file, "PNG")
    rng = random.Random(0)
    for k in range(40):
        data = bytearray(file.getvalue())
        for _ in range(4):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / f"{k}.png").write_bytes(data)
        (tmp_path / f"{k}.txt").write_text("x")
    noisy.save(tmp_path / "sound.png")
    (tmp_path / "sound.txt").write_text("x")
    data = open_data(recipe(tmp_path))
    assert len(take(data, 15)) == 15
    assert dict(data.report.notes)[DAMAGED]


LATIN_1 = os.fsdecode("Müller".encode("latin-1"))


@pytest.fixture
def latin_1(tmp_path):
    """A picture and its caption whose names are no UTF-8, as older archives have them."""
    folder = tmp_path / "data"
    folder.mkdir()
    try:
        Image.new("RGB", (8, 8)).save(folder / f"{LATIN_1}.png")
    except OSError:
        pytest.skip("this disk has UTF-8 names only")
    (folder / f"{LATIN_1}.txt").write_text("a mill")
    Image.new("RGB", (24, 24)).save(folder / "b.png")
    (folder / "b.txt").write_text("a bridge")
    return folder


def test_names_that_are_no_utf8_are_read_told_and_remembered(latin_1, tmp_path):
    options = {"validation": 1, "cache": str(tmp_path / "cache")}
    data = open_data(recipe(latin_1, **options))
    assert data.report.remarks[ENLARGED] == "1 (M\\udcfcller.png)"
    "\n".join(data.report.lines).encode()
    assert open_data(recipe(latin_1, **options)).report == data.report
    shown = {c for batch in take(open_data(recipe(latin_1)), 4, workers=1) for c in batch.captions}
    assert {"a mill", "a bridge"} <= shown


def test_one_caption_for_all_pictures_without(folder):
    (folder / "04.txt").unlink()
    (folder / "05.txt").write_text("")
    entries = open_data(recipe(folder, caption="a photo of sks dog")).collection.entries
    assert entries[4].captions == ("a photo of sks dog",)
    assert entries[5].captions == ("",)  # no words were asked for
    assert entries[6].captions == ("picture 6", "number 6")


def test_pictures_beside_shards_are_noted(folder):
    with tarfile.open(folder / "p.tar", "w") as tar:
        tar.add(folder / "00.png", "00.png")
        tar.add(folder / "00.txt", "00.txt")
    report = open_data(recipe(folder)).report
    assert report.pictures == 1
    assert dict(report.notes)[BESIDE] == tuple(f"{k:02}.png" for k in range(PICTURES))


def test_a_folder_named_like_a_shard_is_a_folder(folder):
    named = folder.rename(folder.parent / "photos.tar")
    assert open_data(recipe(named)).report.pictures == PICTURES


def test_nothing_but_other_files(tmp_path):
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    with pytest.raises(UsageError, match=r"no pictures found in .*; not read.*1 \(a\.psd\)"):
        open_data(recipe(tmp_path))


def test_the_lines_of_a_report(folder):
    (folder / "01.png").write_bytes(b"")
    lines = open_data(recipe(folder, buckets=True)).report.lines
    assert lines[:2] == [
        "data: 12 pictures to learn from, 0 held out, 24 captions",
        "sizes: 16 x 16 (10), 32 x 8 (2)",
    ]
    assert f"{DAMAGED}: 1 (01.png)" in lines
    assert sum(line.startswith(LINES) for line in lines) == 1
