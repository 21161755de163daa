"""A setting: one annotated field of a frozen dataclass, and all that is known of it.

    @dataclass(frozen=True, kw_only=True)
    class Sampling(Group):
        panel: ClassVar[str] = "Sampling"
        steps: Annotated[
            int | None,
            Setting("--steps", "Sampler steps [default: the model's]", low=1, peers="num-steps s"),
        ] = None

The command line, a line of a prompt file, a record in JSON, the configuration file and the Python
API are doors to the same fields: none of them can know a setting that another does not.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from inspect import get_annotations
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from diffgen.errors import UsageError, shown
from diffgen.types import EmbeddingRef, LoraRef

# (the setting's name for an error line, the text) -> the value. Raises UsageError.
Parse = Callable[[str, str], Any]
G = TypeVar("G")
_ROWS: dict[Any, dict[str, Row]] = {}  # by group
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Setting:
    """How a field is written and what it may hold.

    `flags` are the options of the command line, separated by blanks; the last is the user's word.
    `peers` are other programs' words for it, in lower case with hyphens. `low` and `high` bound a
    number, ends included. `parse` reads a value with a grammar of its own; with `repeat` it reads
    one of many.
    """

    flags: str
    help: str
    metavar: str | None = None
    low: float = -math.inf
    high: float = math.inf
    parse: Parse | None = None
    repeat: bool = False
    peers: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A setting with the field it belongs to."""

    name: str  # the field's, and a record's key
    kind: Any  # the field's type, without None
    setting: Setting
    panel: str
    default: Any

    @property
    def word(self) -> str:
        """What users call it: `guidance` for `--guidance`."""
        return self.setting.flags.split()[-1].partition("/")[0].lstrip("-")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every word for it, ours first, in lower case with hyphens."""
        return tuple(dict.fromkeys([self.word, *self._flags, *self.foreign]))

    @property
    def foreign(self) -> tuple[str, ...]:
        """Words that the command line does not take: other programs', and the field's name."""
        words = [self.name.replace("_", "-"), *self.setting.peers.split()]
        return tuple(word for word in words if word not in self._flags)

    @property
    def listed(self) -> bool:
        """Whether several values may be given at once, separated by commas."""
        return False

    @property
    def _flags(self) -> tuple[str, ...]:
        return tuple(flag.lstrip("-") for flag in self.setting.flags.replace("/", " ").split())

    def read(self, value: Any, name: str | None = None, *, typed: str | None = None) -> Any:
        """A value from text or JSON, checked; `name` is what an error line calls the setting, and
        `typed` the word that the user wrote for it.

        Raises UsageError.
        """
        name = name or self.name.replace("_", " ")
        found = self._converted(value, typed or name)
        self.check(found, name)
        return found

    def check(self, value: Any, name: str | None = None) -> None:
        """Raise UsageError for a number that is not finite or out of range."""
        name = name or self.name.replace("_", " ")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        if not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, got {value}")
        if not self.setting.low <= value <= self.setting.high:
            raise UsageError(f"{name} must be {self._bounds(value)}, got {shown(value)}")

    def _bounds(self, value: float) -> str:
        low, high = _plain(self.setting.low), _plain(self.setting.high)
        if math.isinf(self.setting.high):
            return f"at least {low}"
        if math.isinf(self.setting.low):
            return f"at most {high}"
        if isinstance(value, int):  # the end that was missed is enough
            return f"at least {low}" if value < self.setting.low else f"at most {high}"
        return f"from {low} to {high}"

    def _converted(self, value: Any, name: str) -> Any:
        if value is None:
            return None
        if self.setting.repeat:
            many = value if isinstance(value, list | tuple) else [value]
            return tuple(self._parsed(each, name) for each in many)
        if get_origin(self.kind) is tuple and isinstance(value, list | tuple):
            return tuple(_number(each, get_args(self.kind)[0], name) for each in value)
        return self._parsed(value, name)

    def _parsed(self, value: Any, name: str) -> Any:
        if self.setting.parse and isinstance(value, str):
            return self.setting.parse(name, value)
        if get_origin(self.kind) is Literal:
            return _choice(value, get_args(self.kind), name)
        if self.kind is bool:
            return _truth(value, name)
        if self.kind in (int, float):
            return _number(value, self.kind, name)
        if self.kind is str and not isinstance(value, str):
            raise UsageError(f"{name} takes text, not {shown(value)}")
        return value


class Group:
    """A dataclass of settings; checks the ranges of its numbers when it is made."""

    panel: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, row in rows(type(self)).items():
            row.check(getattr(self, name))

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The group's part of values by field name. Raises UsageError."""
        return cls(**{name: given[name] for name in rows(cls) if name in given})

    def part(self, group: type[G]) -> G:
        """Some of the settings by themselves."""
        return group(**{name: getattr(self, name) for name in rows(group)})


def rows(group: Any) -> Mapping[str, Row]:
    """The settings of a group and of those it inherits from, by field name."""
    if group not in _ROWS:
        hints = get_type_hints(group, include_extras=True)
        found = (_row(group, field, hints[field.name]) for field in fields(group))
        _ROWS[group] = {row.name: row for row in found if row}
    return _ROWS[group]


def find(word: str, *groups: type) -> Row | None:
    """The setting that a word stands for, in our spelling or another program's.

    Case, underscores and hyphens do not matter.
    """
    key = word.lower().replace("_", "-").replace(" ", "-").strip("-")
    return next((row for row in each_row(*groups) if key in row.spellings), None)


def plain(group: Group) -> dict[str, Any]:
    """Every setting of a group by field name, as values that JSON has and `Row.read` reads."""
    return {name: _plain_value(getattr(group, name)) for name in rows(type(group))}


def changed(group: Group) -> dict[str, Any]:
    """The same, only what differs from the defaults."""
    defaults = {name: _plain_value(row.default) for name, row in rows(type(group)).items()}
    return {name: value for name, value in plain(group).items() if value != defaults[name]}


def words(group: Group) -> list[str]:
    """What to type on a command line for all that differs from the defaults."""
    table = rows(type(group))
    return [word for name in changed(group) for word in _typed(table[name], getattr(group, name))]


def as_text(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return ",".join("" if each == math.inf else as_text(each) for each in value)
    if isinstance(value, LoraRef):
        return f"{value.path}:{value.settings}"
    if isinstance(value, EmbeddingRef):
        return f"{value.name}={value.path}" if value.name else str(value.path)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def each_row(*groups: type) -> Iterator[Row]:
    """All settings of some groups."""
    for group in groups:
        yield from rows(group).values()


def _typed(row: Row, value: Any) -> list[str]:
    flag, slash, opposite = f"--{row.word}", *row.setting.flags.partition("/")[1:]
    if isinstance(value, bool):
        return [flag] if value else [opposite] * bool(slash)
    texts = [as_text(each) for each in value] if row.setting.repeat else [as_text(value)]
    return [
        word
        for text in texts
        for word in ([f"{flag}={text}"] if text.startswith("-") else [flag, text])
    ]


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(each, int | str) for each in value):
        return list(value)
    if isinstance(value, tuple) and all(isinstance(e, LoraRef | EmbeddingRef) for e in value):
        return [as_text(each) for each in value]
    if isinstance(value, Path | tuple):
        return as_text(value)
    return value


def _row(group: Any, field: Field[Any], hint: Any) -> Row | None:
    if get_origin(hint) is not Annotated:
        return None
    kind, *extras = get_args(hint)
    setting = next((extra for extra in extras if isinstance(extra, Setting)), None)
    if setting is None:
        return None
    panel = next(base.panel for base in group.__mro__ if field.name in _own(base))
    default = None if field.default is MISSING else field.default
    return Row(field.name, _without_none(kind), setting, panel, default)


def _own(group: Any) -> Mapping[str, Any]:
    return get_annotations(group)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        others = [each for each in get_args(kind) if each is not type(None)]
        return others[0] if len(others) == 1 else kind
    return kind


def _choice(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    if value in choices:
        return value
    *others, last = map(str, choices)
    raise UsageError(f"{name} takes {', '.join(others)} or {last}, not {shown(value)}")


def _truth(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in (*TRUE, *FALSE):
        raise UsageError(f"{name} takes true or false, not {shown(value)}")
    return word in TRUE


def _number(value: Any, kind: type[int] | type[float], name: str) -> int | float:
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and value % 1):
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        noun = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name} takes {noun}, not {shown(value)}") from None


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
