"""diffgen.text.vocabulary: the files of a byte-pair vocabulary."""

import json
from pathlib import Path

import pytest

from diffgen.errors import ConfigError
from diffgen.text.vocabulary import Vocabulary, read_vocabulary

IDS = {"a": 0, "b": 1, "#": 2, "#version": 3, "ab": 4, "a#": 5}
EXPECTED = Vocabulary(IDS, [("a", "b"), ("a", "#")])


def write(folder: Path, merges: bytes) -> None:
    (folder / "vocab.json").write_text(json.dumps(IDS))
    (folder / "merges.txt").write_bytes(merges)


@pytest.mark.parametrize(
    "merges",
    [
        b"#version: 0.2\na b\na #\n",
        b"#version: 0.2\r\na b\r\na #\r\n",
        b"a b\na #",
    ],
)
def test_merges(tmp_path: Path, merges: bytes) -> None:
    write(tmp_path, merges)
    assert read_vocabulary(tmp_path) == EXPECTED


@pytest.mark.parametrize("merges", [["a b", "a #"], [["a", "b"], ["a", "#"]]])
def test_tokenizer_json_stands_in(tmp_path: Path, merges: list[object]) -> None:
    model = {"type": "BPE", "vocab": IDS, "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    assert read_vocabulary(tmp_path) == EXPECTED


def test_separate_files_win(tmp_path: Path) -> None:
    write(tmp_path, b"a b\na #\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert read_vocabulary(tmp_path) == EXPECTED


@pytest.mark.parametrize("merge", ["a", "a b #", "a c", "b a"])
def test_a_merge_of_another_vocabulary(tmp_path: Path, merge: str) -> None:
    write(tmp_path, merge.encode())
    with pytest.raises(ConfigError, match=rf"merges\.txt: the merge '{merge}' does not belong"):
        read_vocabulary(tmp_path)


def test_ids_that_are_no_numbers(tmp_path: Path) -> None:
    write(tmp_path, b"")
    (tmp_path / "vocab.json").write_text('{"a": "0"}')
    with pytest.raises(ConfigError, match="should map tokens to whole numbers"):
        read_vocabulary(tmp_path)


def test_tokenizer_json_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": [["a", 0]]}}')
    with pytest.raises(ConfigError, match="should map tokens to whole numbers"):
        read_vocabulary(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vocab\.json is missing"):
        read_vocabulary(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"merges\.txt is missing"):
        read_vocabulary(tmp_path)


def test_unreadable_merges(tmp_path: Path) -> None:
    write(tmp_path, b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"merges\.txt cannot be read"):
        read_vocabulary(tmp_path)
