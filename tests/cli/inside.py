"""What `diffgen` gives when a test calls it in its own process; the fixtures are in conftest.py."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Result]
