"""Settings of which a sweep takes several values: each of those is then an axis of its grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from diffgen.settings.grammar import parse_words
from diffgen.settings.setting import Row, as_text

# One value of each axis by its label, in the order of the axes.
Point: TypeAlias = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Axis(Row):
    """A setting read as a list.

    `label` is its name in keys and tables. `solves` says whether another value leads to another
    converged picture; where it does not, its values are compared with the same one.
    """

    label: str
    solves: bool

    @classmethod
    def of(cls, row: Row, label: str, *, solves: bool) -> Self:
        """The axis of a setting."""
        return cls(row.name, row.kind, row.setting, row.panel, row.default, label, solves)

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

    def _each(self, value: Any, name: str) -> Sequence[Any]:
        if isinstance(value, list) and value:
            return value
        # 7@0-0.6,1@0.6-1 is one value: scales for shares of the steps.
        return parse_words(name, value) if isinstance(value, str) and "@" not in value else [value]


def value_text(value: Any) -> str:
    """A value of an axis as it is typed."""
    return ("on" if value else "off") if isinstance(value, bool) else as_text(value)


def suffix_of(point: Iterable[tuple[str, Any]]) -> str:
    """What the values of some axes add to a key: `-guidance_3-rescale_0.7`."""
    return "".join(f"-{label}_{value_text(value)}" for label, value in point)


def title_of(point: Iterable[tuple[str, Any]]) -> str:
    """The same for a reader: `guidance 3, rescale 0.7`."""
    return ", ".join(f"{label} {value_text(value)}" for label, value in point)
