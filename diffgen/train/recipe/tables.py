"""TOML tables <-> frozen dataclasses, with errors that name the file and the key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from diffgen.errors import ConfigError, UsageError, did_you_mean, is_text, one_line, shown
from diffgen.jsonfile import KINDS, of_kind, parse_toml
from diffgen.limits import check_range

T = TypeVar("T")
Table = dict[str, Any]


def read_toml(path: Path) -> Table:
    """Parse a file. Raises ConfigError if it is missing or malformed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    return parse_toml(text, str(path))


def override(table: Table, assignments: Sequence[str]) -> Table:
    """The table with `a.b=value` assignments applied; a value that is no TOML is a string.

    Raises ConfigError for an assignment without `=` or one that goes through a plain value.
    """
    result = deepcopy(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f'--set takes KEY=VALUE, for example run.steps=100, not "{key}"')
        *parents, last = key.strip().split(".")
        inner = result
        for name in parents:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ConfigError(f'--set {assignment}: "{name}" is not a table')
        inner[last] = _parse_value(text.strip())
    return result


def _parse_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}", "--set")["value"]
    except ConfigError:
        return text


def check_text(value: Any, where: str, key: str = "") -> None:
    """Raise UsageError for bytes of a command line that are no text: a recipe is kept as UTF-8."""
    if isinstance(value, dict):
        for name, each in value.items():
            check_text(each, where, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for each in value:
            check_text(each, where, key)
    elif isinstance(value, str) and not is_text(value):
        raise UsageError(f"{where}: {key}: {one_line(value)} is not UTF-8, as a recipe is")


def build(kind: type[T], table: Table, where: str, prefix: str = "") -> T:
    """A frozen dataclass from a TOML table; `where` names the file in errors.

    Raises ConfigError for an unknown key, a missing one, a wrong type or a number out of range.
    """
    known: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for name in table:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f'{where}: unknown key "{prefix}{name}"{hint}')
    for name, spec in known.items():
        if name not in table and spec.default is MISSING and spec.default_factory is MISSING:
            raise ConfigError(f'{where}: "{prefix}{name}" is missing')
    values = {
        name: _value(hints[name], value, where, f"{prefix}{name}", known[name].metadata)
        for name, value in table.items()
    }
    return kind(**values)


def _value(hint: Any, value: Any, where: str, key: str, limits: Mapping[str, float]) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    options = tuple(option for option in options if option is not type(None))
    for option in options:
        if is_dataclass(option) and isinstance(option, type):
            if not isinstance(value, dict):
                raise ConfigError(f'{where}: "{key}" should be a table, [{key}]')
            return build(option, value, where, f"{key}.")
        found = _plain(option, value)
        if found is not None:
            check_range(found, limits, f'{where}: "{key}"')
            return found
    kinds = " or ".join(_describe(option) for option in options)
    hint_text = _choice_hint(options, value)
    raise ConfigError(f'{where}: "{key}" should be {kinds}, not {shown(value)}{hint_text}')


def _plain(kind: Any, value: Any) -> Any:
    """The value as a plain type, a choice or a tuple; None where it is not of that kind."""
    origin = get_origin(kind)
    if origin is Literal:
        return value if value in get_args(kind) else None
    if origin in (Union, UnionType):
        found = (_plain(option, value) for option in get_args(kind))
        return next((each for each in found if each is not None), None)
    if origin is not None:  # tuple[T, ...] or Sequence[T]
        item = get_args(kind)[0]
        values = [_plain(item, v) for v in value] if isinstance(value, list) else [None]
        return None if None in values else tuple(values)
    return of_kind(value, kind)


def _describe(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(kind))
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, get_args(kind)))
    return KINDS[kind] if origin is None else "a list, each " + _describe(get_args(kind)[0])


def _choice_hint(options: Sequence[Any], value: Any) -> str:
    choices = [c for option in options if get_origin(option) is Literal for c in get_args(option)]
    return did_you_mean(str(value), choices) if choices else ""


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a dataclass that are not None."""
    for spec in fields(value):
        entry = getattr(value, spec.name)
        if is_dataclass(entry):
            yield from flatten(entry, f"{prefix}{spec.name}.")
        elif entry is not None:
            yield f"{prefix}{spec.name}", entry


def to_toml(value: Any) -> str:
    """A dataclass as TOML that `build` reads back; None is left out."""
    return tomli_w.dumps(_table(value))


def _table(value: Any) -> Table:
    entries = ((spec.name, getattr(value, spec.name)) for spec in fields(value))
    return {
        name: _table(entry) if is_dataclass(entry) else entry
        for name, entry in entries
        if entry is not None
    }


def differences(old: Any, new: Any) -> list[str]:
    """`key: old -> new` for every key in which two dataclasses of one kind differ."""
    before, after = dict(flatten(old)), dict(flatten(new))
    return [
        f"{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _shown(values: Mapping[str, Any], key: str) -> str:
    return shown(values[key]) if key in values else "unset"
