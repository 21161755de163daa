import os
import subprocess
import sys
import unicodedata

import pytest
from PIL import Image

from diffgen.errors import ConfigError, UsageError
from diffgen.train.data import folders
from diffgen.train.data.folders import (
    CLOSED,
    NO_FILES,
    NOT_READ,
    NOWHERE,
    RUNS,
    UNLISTED,
    read_folder,
)


def draw(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name, "PNG")
    return folder


def names(found):
    return [entry.name for entry in found.entries]


def captions(found):
    return {entry.name: entry.captions for entry in found.entries}


def test_linked_folders_are_followed_each_once(tmp_path):
    data = draw(tmp_path / "data", "a.png", "real/b.png")
    other = draw(tmp_path / "other", "c.png", "deep/d.png")
    (data / "linked").symlink_to(other)
    (data / "again").symlink_to(other)
    (data / "a-link-to-real").symlink_to(data / "real")
    (data / "real" / "round").symlink_to(data)
    (other / "deep" / "self").symlink_to(other / "deep")
    found = read_folder(data)
    # What is there without links keeps its name; a linked folder is read by its first one.
    assert names(found) == ["a.png", "again/c.png", "again/deep/d.png", "real/b.png"]
    assert found.notes == {}


def test_a_linked_folder_that_is_given_itself(tmp_path):
    (tmp_path / "data").symlink_to(draw(tmp_path / "real", "a.png"))
    assert names(read_folder(tmp_path / "data")) == ["a.png"]


def test_what_cannot_be_read_is_noted(tmp_path, monkeypatch):
    draw(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    scandir = os.scandir

    def refused(path):  # root reads everything: permissions alone would not refuse it
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refused)
    found = read_folder(tmp_path)
    assert names(found) == ["a.png"]
    assert found.notes == {
        NOWHERE: ["gone", "gone.png", "loop.png"],
        NO_FILES: ["pipe.png"],
        CLOSED: ["closed"],
    }


def test_other_files_are_noted_and_hidden_ones_passed_over(tmp_path):
    draw(tmp_path, "a.png", ".hidden/b.png", ".c.png")
    for name in ("a.txt", "orphan.txt", "b.psd", "c.cr2", "IMG_1", "sub.mp4"):
        (tmp_path / name).write_text("words")
    found = read_folder(tmp_path)
    assert names(found) == ["a.png"]
    assert found.notes == {NOT_READ: ["IMG_1", "b.psd", "c.cr2", "orphan.txt", "sub.mp4"]}


@pytest.mark.parametrize("mark", ["metrics.jsonl", "checkpoints"])
def test_runs_are_not_learned_from(tmp_path, mark):
    draw(tmp_path, "a.png", "runs/mine/samples/step-1.png", "style.run/model/sample.png")
    for run in ("runs/mine", "style.run"):
        (tmp_path / run / "recipe.toml").write_text("")
        (tmp_path / run / mark).mkdir()
    found = read_folder(tmp_path)
    assert names(found) == ["a.png"]
    assert found.notes == {RUNS: ["runs/mine", "style.run"]}


def test_a_run_may_lie_in_the_folder_of_its_pictures_itself(tmp_path):
    draw(tmp_path, "a.png", "sub/b.png", "samples/step-1.png", "model/loss.png")
    for name in ("recipe.toml", "metrics.jsonl"):
        (tmp_path / name).write_text("")
    found = read_folder(tmp_path)
    assert names(found) == ["a.png", "sub/b.png"]
    assert found.notes == {RUNS: ["."], NOT_READ: ["metrics.jsonl", "recipe.toml"]}


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv", "captions.csv"])
def test_a_table_rules_its_folder_and_those_below(tmp_path, table):
    draw(tmp_path, "top.png", "cats/a.png", "cats/small/b.png", "cats/unlisted.png", "dogs/a.png")
    (tmp_path / "top.txt").write_text("top")
    (tmp_path / "dogs" / "a.txt").write_text("a dog")
    rows = {"a.png": "a cat", "small/b.png": "a small cat"}
    if table.endswith("jsonl"):
        text = "".join(f'{{"file_name": "{n}", "text": "{t}"}}\n' for n, t in rows.items())
    else:
        text = "file_name, text\n" + "".join(f"{name}, {text}\n" for name, text in rows.items())
    (tmp_path / "cats" / table).write_text(text)
    found = read_folder(tmp_path)
    assert captions(found) == {
        "top.png": ("top",),
        "cats/a.png": ("a cat",),
        "cats/small/b.png": ("a small cat",),
        "dogs/a.png": ("a dog",),
    }
    assert found.notes == {UNLISTED: ["cats/unlisted.png"]}


def test_two_tables_in_one_folder_are_refused(tmp_path):
    draw(tmp_path, "sub/a.png")
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / "sub" / name).write_text("")
    with pytest.raises(UsageError, match=r"sub holds metadata\.jsonl and metadata\.csv"):
        read_folder(tmp_path)


def test_captions_are_found_where_people_put_them(tmp_path):
    words = {
        "a.png": "a.txt",
        "CAT.PNG": "CAT.TXT",
        "Dog.png": "dog.txt",
        "e.png": "e.png.txt",
        "f.png": "f.caption",
        "g.b.jpg": "g.b.txt",
        unicodedata.normalize("NFC", "für.png"): unicodedata.normalize("NFD", "für.txt"),
    }
    draw(tmp_path, *words)
    for picture, file in words.items():
        (tmp_path / file).write_text(f"words of {picture}")
    found = read_folder(tmp_path)
    assert captions(found) == {picture: (f"words of {picture}",) for picture in words}
    assert found.notes == {}


def test_an_exact_name_goes_before_another_spelling(tmp_path):
    if (draw(tmp_path, "a.png", "A.png") / "a.png").samefile(tmp_path / "A.png"):
        pytest.skip("this disk does not tell capitals apart")
    (tmp_path / "a.txt").write_text("small")
    (tmp_path / "A.TXT").write_text("large")
    (tmp_path / "A.txt").write_text("exact")
    assert captions(read_folder(tmp_path)) == {"A.png": ("exact",), "a.png": ("small",)}


def test_captions_must_be_utf8(tmp_path):
    draw(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"a\.txt is not UTF-8"):
        read_folder(tmp_path)


def test_reading_a_folder_needs_no_torch():
    code = "import sys, diffgen.train.data.folders, diffgen.train.data.shards; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
