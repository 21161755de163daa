"""diffgen.jsonfile: JSON objects whose mistakes are named by file, line and key."""

import os
import time
from pathlib import Path

import pytest

from diffgen.errors import ConfigError
from diffgen.jsonfile import MAX_CONFIG, JsonObject, parse_json, parse_toml

PATH = Path("config.json")


def test_values_have_the_type_of_their_default() -> None:
    config = JsonObject(PATH, {"a": 1, "b": 2, "c": None, "d": "x", "e": False})
    assert config.get("a", 0) == 1
    assert isinstance(config.get("b", 0.5), float)
    assert config.get("c", 3) == 3
    assert config.get("d", "") == "x"
    assert config.get("e", True) is False
    assert config.get("missing", 7) == 7
    assert config.optional("c", int) is None


def test_lists_and_lone_values() -> None:
    config = JsonObject(PATH, {"a": [1, 2], "b": 3, "c": None})
    assert config.many("a", float) == (1.0, 2.0)
    assert config.many("b", int) == (3,)
    assert config.many("c", int) is None
    assert config.many_or("c", int, (7,)) == (7,)
    assert JsonObject(PATH, {"a": []}).many_or("a", int, (7,)) == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.5, "a whole number, not 1.5"), (True, "not true"), ("1", 'not "1"'), ([1], r"not \[1\]")],
)
def test_a_value_of_another_type(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=rf'config\.json: "a" should be .*{message}'):
        JsonObject(PATH, {"a": value}).get("a", 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b"\n}', r"config\.json:3: not valid JSON"),
        (b"", r"config\.json:1: not valid JSON"),
        (b"[]", "should hold a JSON object"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b'{"a": 1, "b": {"c": 2, "d": 3, "c": 2}}', 'the key "c" is repeated'),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, r"config\.json:1: .*nested too deeply"),
        (b"[" * 10_000, r"config\.json:1: not usable JSON: it is nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", r"config\.json:1: .*a number of thousands of digits"),
    ],
)
def test_a_malformed_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        JsonObject.read(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        JsonObject.read(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        JsonObject.read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read: it is a pipe"):
        JsonObject.read(tmp_path / "config.json")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 2 << 40)  # a sparse file of 2 TiB
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"config\.json has more than 4 MiB"):
        JsonObject.read(path)
    assert time.process_time() - start < 1
    assert MAX_CONFIG == 4 << 20


def test_many_keys_of_which_one_is_there_twice_are_looked_through_once() -> None:
    text = ", ".join(f'"{n}": 0' for n in [*range(200_000), 199_999])
    start = time.process_time()
    with pytest.raises(ConfigError, match='the key "199999" is repeated'):
        parse_json(f"{{{text}}}", "vocab.json")
    assert time.process_time() - start < 3


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert JsonObject.read(tmp_path / "config.json").data == {"a": 1}


def test_a_whole_number_too_large_for_a_float() -> None:
    with pytest.raises(ConfigError, match='"a" should be a number, not 1000'):
        JsonObject(PATH, {"a": 10**400}).get("a", 0.5)


def test_long_values_are_cut_and_control_characters_escaped() -> None:
    with pytest.raises(ConfigError) as caught:
        JsonObject(PATH, {"a": "\x1b[31m" + "x" * 1000}).get("a", 0)
    assert r'not "\u001b[31mxxx' in str(caught.value)
    assert len(str(caught.value)) < 130


def test_tables() -> None:
    config = JsonObject(PATH, {"a": {"b": 1}, "c": [1], "d": None})
    assert config.table("a") == {"b": 1}
    assert config.table("d") == config.table("e") == {}
    with pytest.raises(ConfigError, match=r'"c" should be an object, not \[1\]'):
        config.table("c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "not valid TOML: Invalid value"),
        ("a = " + "[" * 10_000, "it is nested too deeply"),
        ("a = " + "9" * 10_000, "it has a number of thousands of digits"),
    ],
)
def test_malformed_toml(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^x\.toml: .*{message}"):
        parse_toml(text, "x.toml")


def test_nothing_else_parses_what_others_wrote() -> None:
    """Each parser of its own forgot another of the ways in which Python's fail."""
    package = Path(__file__).parents[1] / "diffgen"
    calls = ("json.load", "tomllib", "tomli.")
    others = [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        if path.name != "jsonfile.py" and any(call in path.read_text() for call in calls)
    ]
    assert not others


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git-LFS pointer, not"),
        ("\n<!DOCTYPE html><html></html>", "is a web page, not JSON; download"),
    ],
)
def test_what_was_saved_in_the_place_of_json_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        JsonObject.read(tmp_path / "config.json")
