"""diffgen.text.vocabulary: the files of a byte-pair vocabulary."""

import json
import os
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
    with pytest.raises(ConfigError, match=rf'merges\.txt: the merge "{merge}" does not belong'):
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
    with pytest.raises(ConfigError, match=r"merges\.txt is not UTF-8 text"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"a": -1}, 'the token "a" has the id -1; ids are from 0'),
        ({"a": 2**63}, 'the token "a" has the id 9223372036854775808; ids'),
        ({"a": 1.0}, "should map tokens to whole numbers"),
        ({"a": True}, "should map tokens to whole numbers"),
        ({"a": None}, "should map tokens to whole numbers"),
        ({"a": 3, "b": 0, "c": 3}, "two tokens have the id 3"),
        ({"\ud83d": 0}, r"a token has half a character, U\+D83D"),
        (["a", "b"], "should hold a JSON object"),
    ],
)
def test_ids_that_no_table_has(tmp_path: Path, ids: object, message: str) -> None:
    write(tmp_path, b"")
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    with pytest.raises(ConfigError, match=rf"vocab\.json:? .*{message}"):
        read_vocabulary(tmp_path)


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    write(tmp_path, b"a b\n")
    (tmp_path / "vocab.json").write_text('{"a": 5, "b": 90, "ab": 0}')
    assert read_vocabulary(tmp_path) == Vocabulary({"a": 5, "b": 90, "ab": 0}, [("a", "b")])


@pytest.mark.parametrize(
    "model",
    [
        [],
        {"vocab": IDS, "merges": {"a": "b"}},
        {"vocab": IDS, "merges": "a b"},
        {"vocab": IDS, "merges": [7]},
        {"vocab": IDS, "merges": [["a", ["b"]]]},
        {"vocab": IDS, "merges": [["a", "b", "ab"]]},
        {"vocab": IDS, "merges": [{"a": 1, "b": 2}]},
        {"vocab": [["a", 0]], "merges": []},
    ],
)
def test_a_tokenizer_json_of_another_form(tmp_path: Path, model: object) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with pytest.raises(ConfigError, match=r"tokenizer\.json: "):
        read_vocabulary(tmp_path)


def test_a_huge_vocabulary_is_refused_unread(tmp_path: Path) -> None:
    write(tmp_path, b"")
    os.truncate(tmp_path / "merges.txt", 1 << 40)
    with pytest.raises(ConfigError, match=r"merges\.txt has more than 16 MiB"):
        read_vocabulary(tmp_path)
