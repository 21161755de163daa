"""JSON objects read from files, with errors that name the file, the line and the key.

Importing this module does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from diffgen.errors import ConfigError

T = TypeVar("T")

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object and the file it came from, read key by key with checked types.

    `null` counts as absent: it is how diffusers and transformers write an option that is off.
    """

    path: Path
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Parse a file. Raises ConfigError if it is missing, malformed or not an object."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} is missing; is the download complete?") from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text; download it again.") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path} should hold a JSON object, {{...}}; download it again.")
        return cls(path, data)

    def optional(self, key: str, kind: type[T]) -> T | None:
        """The value under `key`, or None. Raises ConfigError if it is not of this kind."""
        value = self.data.get(key)
        return None if value is None else self._checked(key, value, kind)

    def get(self, key: str, default: T) -> T:
        """The value under `key`, of the default's type; the default where there is none."""
        value = self.optional(key, type(default))
        return default if value is None else value

    def many(self, key: str, kind: type[T]) -> tuple[T, ...] | None:
        """The list under `key`, a lone value counting as a list of one; None where absent."""
        value = self.data.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        return tuple(self._checked(key, v, kind) for v in values)

    def _checked(self, key: str, value: object, kind: type[T]) -> T:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:  # not isinstance: true is no whole number
            raise ConfigError(
                f'{self.path}: "{key}" should be {KINDS[kind]}, not {json.dumps(value)}.'
            )
        return value
