"""diffgen.limits: ranges declared beside fields."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest

from diffgen.errors import ConfigError
from diffgen.limits import check_ranges, required, within


@dataclass(frozen=True, kw_only=True)
class Example:
    count: int = required(1, 8)
    share: float = within(0.5, 0.0, 1.0)
    widths: tuple[int, ...] = within((1, 2), 1, 4)
    depth: int | None = within(None, 0)
    free: float = 0.0
    switch: bool = True
    name: str = "x"


def test_what_is_in_range_passes() -> None:
    check_ranges(Example(count=1), str)
    check_ranges(Example(count=8, share=1.0, widths=(), depth=10**30, free=-1e300), str)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "COUNT must be from 1 to 8, not 0"),
        ({"count": 2**63}, "COUNT must be from 1 to 8, not 9223372036854775808"),
        ({"share": math.nan}, "SHARE must be a finite number, not nan"),
        ({"share": -0.25}, "SHARE must be from 0 to 1, not -0.25"),
        ({"widths": (1, 2, 5)}, "WIDTHS must be from 1 to 4, not 5"),
        ({"depth": -1}, "DEPTH must be at least 0, not -1"),
        ({"free": math.inf}, "FREE must be a finite number, not inf"),
    ],
)
def test_what_is_not_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_ranges(replace(Example(count=1), **change), str.upper)
    assert str(caught.value) == message
