"""Ranges of numbers, declared beside the fields of frozen dataclasses and checked by one function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from diffgen.errors import ConfigError, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# A field's name in its file, such as `"block_out_channels"` for `channels`.
Naming: TypeAlias = Callable[[str], str]

MAX_LAYERS = 256  # of any network


def within(default: Any, low: float, high: float = math.inf) -> Any:
    """A dataclass field whose number, or each of whose numbers, lies in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def required(low: float, high: float = math.inf) -> Any:
    """As `within`, without a default."""
    return field(metadata={"low": low, "high": high})


def check_ranges(config: DataclassInstance, named: Naming) -> None:
    """Raise ConfigError for the first number of a dataclass outside its range."""
    for spec in fields(config):
        check_range(getattr(config, spec.name), spec.metadata, named(spec.name))


def check_range(value: object, limits: Mapping[str, float], name: str) -> None:
    """Raise ConfigError for a number, or one in tuples, outside its limits or not finite."""
    low, high = limits.get("low", -math.inf), limits.get("high", math.inf)
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, tuple):
            check_range(number, limits, name)
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{name} must be a finite number, not {number}")
        if isinstance(number, int | float) and not low <= number <= high:
            raise ConfigError(f"{name} must be {_bounds(low, high)}, not {shown(number)}")


def _bounds(low: float, high: float) -> str:
    if low == high:
        return _plain(low)
    return (
        f"at least {_plain(low)}" if math.isinf(high) else f"from {_plain(low)} to {_plain(high)}"
    )


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
