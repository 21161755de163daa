import io
import json
import subprocess
import sys
import tarfile

import pytest
from PIL import Image

from diffgen.errors import ConfigError, UsageError
from diffgen.train.data.folders import NOT_READ
from diffgen.train.data.shards import expand_shards, read_shards

pytest.importorskip("webdataset")


def png(level):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_shard(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_samples_are_read_at_their_offsets(tmp_path):
    write_shard(tmp_path / "p-0.tar", [("a.png", png(1)), ("a.txt", b"one\nuno"), ("b.txt", b"-")])
    second = [
        ("c.json", json.dumps({"text": "two"}).encode()),
        ("c.PNG", png(2)),
        ("d.png", png(3)),
    ]
    write_shard(tmp_path / "p-1.tar", second)
    entries = read_shards(expand_shards(str(tmp_path / "p-{0..1}.tar"))).entries
    assert [(e.name, e.captions) for e in entries] == [
        ("p-0.tar/a.png", ("one", "uno")),
        ("p-1.tar/c.png", ("two",)),
        ("p-1.tar/d.png", ()),
    ]
    assert [e.read() for e in entries] == [png(1), png(2), png(3)]
    assert expand_shards(str(tmp_path / "p-*.tar")) == [tmp_path / "p-0.tar", tmp_path / "p-1.tar"]


def captions(path):
    return {entry.name: entry.captions for entry in read_shards([path]).entries}


def test_names_with_dots_have_their_own_captions(tmp_path):
    members = [
        *(("s 1.0 final.png", png(1)), ("s 1.0 final.txt", b"red")),
        *(("s 1.1 final.png", png(2)), ("s 1.1 final.txt", b"blue")),
        *(("d.x/a.b.jpg", png(3)), ("d.x/a.b.caption", b"green")),
    ]
    path = write_shard(tmp_path / "p.tar", members)
    assert list(captions(path).values()) == [("red",), ("blue",), ("green",)]


def test_several_pictures_of_a_sample_share_its_caption(tmp_path):
    members = [("7.left.png", png(1)), ("7.right.png", png(2)), ("7.txt", b"a house")]
    path = write_shard(tmp_path / "p.tar", members)
    assert captions(path) == {"p.tar/7.left.png": ("a house",), "p.tar/7.right.png": ("a house",)}


@pytest.mark.parametrize("words_first", [False, True])
def test_captions_may_lie_anywhere_in_a_shard(tmp_path, words_first):
    pictures = [(f"{k}.png", png(k)) for k in range(3)]
    words = [(f"{k}.TXT", f"words {k}".encode()) for k in reversed(range(3))]
    members = [*words, *pictures] if words_first else [*pictures, *words]
    path = write_shard(tmp_path / "p.tar", members)
    assert captions(path) == {f"p.tar/{k}.png": (f"words {k}",) for k in range(3)}


def test_members_that_are_not_read_are_noted(tmp_path):
    members = [("a.png", png(1)), ("a.txt", b"x"), ("a.npy", b"x"), ("._a.png", b"x"), ("b", b"x")]
    found = read_shards([write_shard(tmp_path / "p.tar", members)])
    assert [entry.name for entry in found.entries] == ["p.tar/a.png"]
    assert found.notes == {NOT_READ: ["p.tar/a.npy", "p.tar/b"]}


def test_paragraphs_in_a_shard_stay_one_caption(tmp_path):
    path = write_shard(tmp_path / "p.tar", [("a.png", png(1)), ("a.txt", b"A barn.\n\nIt is red.")])
    assert captions(path) == {"p.tar/a.png": ("A barn. It is red.",)}
    lines = read_shards([path], "lines").entries[0].captions
    assert lines == ("A barn.", "It is red.")


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    folder = tmp_path / "set [v2]{1,2}"
    folder.mkdir()
    for k in range(2):
        write_shard(folder / f"a-{k}.tar", [("a.png", png(k))])
    assert expand_shards(f"{folder}/a-0.tar") == [folder / "a-0.tar"]
    folder = folder.rename(tmp_path / "set [v2]")
    both = [folder / "a-0.tar", folder / "a-1.tar"]
    assert expand_shards(f"{folder}/a-*.tar") == both
    assert expand_shards(f"{folder}/a-{{0..1}}.tar") == both
    assert expand_shards(f"{tmp_path}/set*/a-[01].tar") == both


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its file open
def test_webdataset_reads_the_same_samples(tmp_path):
    import webdataset

    members = [
        (f"s/{k}.{ext}", data) for k in range(3) for ext, data in (("png", png(k)), ("txt", b"x"))
    ]
    path = write_shard(tmp_path / "p.tar", members)
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample["png"] for sample in theirs] == [e.read() for e in read_shards([path]).entries]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b"<html>" * 200), "not an uncompressed tar"),
        (lambda p: write_shard(p, [("a.png", png(1))], "w:gz"), "not an uncompressed tar"),
        (lambda p: None, "is missing"),
        (lambda p: write_shard(p, [("a.png", png(1)), ("a.png", png(2))]), "duplicate"),
        (
            lambda p: write_shard(p, [("a.png", png(1)), ("a.json", b"{")]),
            r"a\.json:1: not valid JSON",
        ),
        (lambda p: write_shard(p, [("a.png", png(1)), ("a.txt", b"\xff")]), "not UTF-8"),
    ],
)
def test_unreadable_shards_are_named(tmp_path, write, message):
    path = tmp_path / "p.tar"
    write(path)
    with pytest.raises(ConfigError, match=message) as caught:
        read_shards([path])
    assert str(path) in str(caught.value)


def test_a_shard_that_is_cut_off(tmp_path):
    path = write_shard(tmp_path / "p.tar", [("a.bmp", bytes(5000))])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="download it again"):
        read_shards([path])


@pytest.mark.parametrize("path", ["https://example.org/p.tar", "pipe:cat p.tar", "nowhere-*.tar"])
def test_shards_must_be_on_disk(path):
    with pytest.raises(UsageError):
        expand_shards(path)


def test_without_webdataset_it_says_what_to_install():
    code = (
        "import sys; sys.modules['webdataset'] = None\n"
        "from diffgen.train.data.shards import expand_shards\n"
        "try: expand_shards('p-{0..1}.tar')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UsageError")
    assert "pip install" in done.stdout
