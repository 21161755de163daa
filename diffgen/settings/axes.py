"""Settings of which a sweep takes several values: each of those is then an axis of its grid.

A point of the grid and a cell's key have a mark for each value: the number or word itself, and for
files, whose paths are long, a short name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, product
from pathlib import Path
from typing import Any, Self, TypeAlias

from diffgen.files import expanded
from diffgen.settings.grammar import NUMBER, interval_text, parse_words
from diffgen.settings.setting import Row, as_text
from diffgen.types import LoraRef

# The mark of one value of each axis by the axis' label, in the order of the axes.
Point: TypeAlias = tuple[tuple[str, Any], ...]
NONE = "none"  # an empty stack
SUFFIXES = (".safetensors", ".ckpt", ".gguf")
MAX_NAME = 60  # characters, of what becomes part of a file's name


@dataclass(frozen=True, slots=True)
class Axis(Row):
    """A setting read as a list.

    `label` is its name in keys and tables. `solves` says whether another value leads to another
    converged picture; where it does not, its values are compared with the same one. `loads` says
    whether another value takes other weights in memory.
    """

    label: str
    solves: bool
    loads: bool

    @classmethod
    def of(
        cls, row: Row, label: str, *, solves: bool, loads: bool = False, flags: str | None = None
    ) -> Self:
        """The axis of a setting, by other `flags` if need be."""
        setting = replace(row.setting, flags=flags) if flags else row.setting
        return cls(row.name, row.kind, setting, row.panel, row.default, label, solves, loads)

    def read(self, value: Any, name: str | None = None, *, typed: str | None = None) -> Any:
        """As `Row.read`: the value where there is one, a list of them, each once, where there are more.

        Raises UsageError.
        """
        each = self._each(value, name or f"--{self.word}")
        values = list(dict.fromkeys(Row.read(self, one, name, typed=typed) for one in each))
        return values if len(values) > 1 else values[0]

    @property
    def listed(self) -> bool:
        return True

    def marks(self, values: Sequence[Any]) -> list[float | bool | str]:
        """What stands for each of some values in points and keys."""
        return list(values)

    def plain(self, value: Any) -> Any:
        """One of several values as JSON has it and `read` reads it."""
        return value

    def _each(self, value: Any, name: str) -> Sequence[Any]:
        if isinstance(value, list) and value:
            return value
        return self._words(value, name) if isinstance(value, str) else [value]

    def _words(self, text: str, name: str) -> Sequence[Any]:
        # 7@0-0.6,1@0.6-1 is one value: scales for shares of the steps.
        return [text] if "@" in text else parse_words(name, text)


class Intervals(Axis):
    """An axis of noise levels: `0.3-5,all`. `0.3,5` is one interval."""

    __slots__ = ()

    def marks(self, values: Sequence[Any]) -> list[float | bool | str]:
        return [interval_text(value) for value in values]

    def plain(self, value: Any) -> Any:
        return interval_text(value)

    def _words(self, text: str, name: str) -> Sequence[Any]:
        alone = re.fullmatch(rf"\s*({NUMBER})?\s*,\s*({NUMBER}|inf)?\s*", text)
        return [text] if alone else parse_words(name, text)


class Models(Axis):
    """An axis of models, by names and paths."""

    __slots__ = ()

    def marks(self, values: Sequence[Any]) -> list[float | bool | str]:
        paths = [Path(text) for text in values]
        return [*_names([(_stem(path), f"{path.parent.name}-{_stem(path)}") for path in paths])]

    def _words(self, text: str, name: str) -> Sequence[Any]:
        return [text] if expanded(text).exists() else parse_words(name, text)


class Stacks(Axis):
    """An axis of LoRAs: `a,b` is one or the other, a repeated option one beside the other."""

    __slots__ = ()

    def marks(self, values: Sequence[Any]) -> list[float | bool | str]:
        return [*_names([("+".join(map(_called, stack)),) for stack in values])]

    def plain(self, value: Any) -> Any:
        return [as_text(each) for each in value]

    def _each(self, value: Any, name: str) -> Sequence[Any]:
        if not isinstance(value, list | str):
            return [value]
        options = [value] if isinstance(value, str) else value
        if not all(isinstance(each, str) for each in options):
            return options
        stacks = product(*(self._words(each, name) for each in options))
        return [[each for each in stack if each != NONE] for stack in stacks]

    def _words(self, text: str, name: str) -> Sequence[Any]:
        if expanded(text).is_file():
            return [text]
        words: list[str] = []
        for word in parse_words(name, text):
            if words and re.match(r"\w+\s*=", word):  # a setting of the LoRA before
                words[-1] += f",{word}"
            else:
                words.append(word)
        return words


def value_text(value: Any) -> str:
    """The mark of a value as it is typed."""
    return ("on" if value else "off") if isinstance(value, bool) else as_text(value)


def suffix_of(point: Iterable[tuple[str, Any]]) -> str:
    """What the values of some axes add to a key: `-guidance_3-rescale_0.7`."""
    return "".join(f"-{label}_{value_text(value)}" for label, value in point)


def title_of(point: Iterable[tuple[str, Any]]) -> str:
    """The same for a reader: `guidance 3, rescale 0.7`."""
    return ", ".join(f"{label} {value_text(value)}" for label, value in point)


def _names(wishes: Iterable[Sequence[str]]) -> list[str]:
    """The first of its wishes that is free, fit for the name of a file, or numbered, for each."""
    names: list[str] = []
    for texts in wishes:
        wished = [_fit(text) for text in texts]
        numbered = (f"{wished[0]}-{number}" for number in count(2))
        names.append(next(name for name in chain(wished, numbered) if name not in names))
    return names


def _fit(text: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower())[:MAX_NAME].strip("-.") or NONE


def _stem(path: Path) -> str:
    return path.stem if path.suffix in SUFFIXES else path.name


def _called(lora: LoraRef) -> str:
    settings = "" if lora.settings == "1" else f"-{lora.settings}"
    return f"{_stem(lora.path)}{settings}"
