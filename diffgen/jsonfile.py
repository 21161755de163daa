"""Untrusted JSON and TOML, with errors that name the file, the line and the key."""

from __future__ import annotations

import json
import stat
import tomllib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from diffgen.errors import ConfigError, shown

T = TypeVar("T")

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
MAX_CONFIG = 4 << 20  # bytes; parsed, JSON takes up to 25 times its size
WEB_PAGE = "a web page, not JSON; download the file itself again"
NO_JSON = {
    "version https://git-lfs": "a Git-LFS pointer, not the file; run `git lfs pull` there",
    "<!doctype": WEB_PAGE,
    "<html": WEB_PAGE,
    "<?xml": WEB_PAGE,
}
TOO_DEEP = "it is nested too deeply"
TOO_LONG = "it has a number of thousands of digits"


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object and its file, read key by key with checked types.

    `null` counts as absent: diffusers and transformers write it for an option that is off.
    """

    path: Path
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, *, at_most: int = MAX_CONFIG) -> Self:
        """Parse a file of `at_most` bytes.

        Raises ConfigError if it is missing, too large, malformed or not an object.
        """
        text = read_text(path, at_most=at_most)
        for start, kind in NO_JSON.items():
            if text.lstrip()[:40].lower().startswith(start):
                raise ConfigError(f"{path} is {kind}")
        data = parse_json(text, str(path))
        if not isinstance(data, dict):
            raise ConfigError(f"{path} should hold a JSON object, {{...}}; download it again")
        return cls(path, data)

    def optional(self, key: str, kind: type[T]) -> T | None:
        """The value under `key`, or None. Raises ConfigError for a value of another kind."""
        value = self.data.get(key)
        return None if value is None else self._checked(key, value, kind)

    def get(self, key: str, default: T) -> T:
        """The value under `key`, of the default's type, or the default."""
        value = self.optional(key, type(default))
        return default if value is None else value

    def many(self, key: str, kind: type[T]) -> tuple[T, ...] | None:
        """The list under `key`, with a single value as a list of one; None if absent."""
        value = self.data.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        return tuple(self._checked(key, v, kind) for v in values)

    def many_or(self, key: str, kind: type[T], default: tuple[T, ...]) -> tuple[T, ...]:
        """As `many`, with a default if absent; an empty list stays empty."""
        found = self.many(key, kind)
        return default if found is None else found

    def table(self, key: str) -> dict[str, Any]:
        """The object under `key`; an empty one if absent."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, dict):
            raise ConfigError(f'{self.path}: "{key}" should be an object, not {shown(value)}')
        return value or {}

    def named(self, key: str) -> str:
        """The name of the value under `key` in errors."""
        return f'{self.path}: "{key}"'

    def _checked(self, key: str, value: object, kind: type[T]) -> T:
        found = of_kind(value, kind)
        if found is None:
            raise ConfigError(f"{self.named(key)} should be {KINDS[kind]}, not {shown(value)}")
        return found


def of_kind(value: object, kind: type[T]) -> T | None:
    """A value of exactly this kind, None for any other; a whole number may stand for a float."""
    if kind is float and type(value) is int:
        with suppress(OverflowError):
            value = float(value)
    return value if type(value) is kind else None  # not isinstance: true is no whole number


def read_text(path: Path, *, at_most: int) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises ConfigError if it is missing, no regular file, of more than `at_most` bytes or not text.
    """
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening it would wait for a writer
            raise ConfigError(f"{path} cannot be read: it is a pipe, not a file")
        with path.open("rb") as file:
            content = file.read(at_most + 1)
        if len(content) > at_most:
            raise ConfigError(
                f"{path} has more than {at_most >> 20} MiB, which no such file needs; "
                "download it again"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; is the download complete?") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; download it again") from error


def parse_json(text: str, where: str, *, line: int = 1) -> Any:
    """Parse JSON text; its first line is `line` of the file `where`.

    Raises ConfigError for every error of Python's parser, and for a repeated key.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = counts.most_common(1)[0][0]
            raise ConfigError(f"{where}: the key {shown(twice)} is repeated")
        return table

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        number = line + error.lineno - 1
        raise ConfigError(f"{where}:{number}: not valid JSON: {error.msg}") from error
    except RecursionError:
        raise ConfigError(f"{where}:{line}: not usable JSON: {TOO_DEEP}") from None
    except ValueError:
        raise ConfigError(f"{where}:{line}: not usable JSON: {TOO_LONG}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML text. Raises ConfigError for every error of Python's parser."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{where}: not usable TOML: {TOO_DEEP}") from None
    except ValueError:
        raise ConfigError(f"{where}: not usable TOML: {TOO_LONG}") from None
