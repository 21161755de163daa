"""diffgen.jsonfile: JSON objects whose mistakes are named by file, line and key."""

from pathlib import Path

import pytest

from diffgen.errors import ConfigError
from diffgen.jsonfile import JsonObject

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
