"""Options in a model's JSON files whose value diffgen fixes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from diffgen.errors import UnsupportedCheckpoint, shown
from diffgen.jsonfile import JsonObject

S = TypeVar("S", bound=str)


def refuse_other_values(config: JsonObject, allowed: Mapping[str, Sequence[object]]) -> None:
    """Raise UnsupportedCheckpoint if an option has another value.

    Absent and null are accepted, and a list of allowed values, one per level.
    """
    for key, values in allowed.items():
        value = config.data.get(key)
        each = value if isinstance(value, list) and value else [value]
        if value is not None and value not in values and any(v not in values for v in each):
            raise unsupported(config, key, values)


def one_of(config: JsonObject, key: str, choices: Sequence[S]) -> S:
    """The string under `key`, by default the first choice.

    Raises UnsupportedCheckpoint if it is not one of the choices.
    """
    value = config.get(key, str(choices[0]))
    for choice in choices:
        if value == choice:
            return choice
    raise unsupported(config, key, choices)


def unsupported(config: JsonObject, key: str, values: Iterable[object]) -> UnsupportedCheckpoint:
    """The error for an option with an unsupported value."""
    known = ", ".join(json.dumps(value) for value in values) or "null"
    value = shown(config.data.get(key))
    return UnsupportedCheckpoint(
        f"{config.named(key)} is {value}, which is not supported (supported: {known})"
    )
