"""The small grammars of values that are no plain numbers or words."""

from __future__ import annotations

import math
import re
from pathlib import Path

from diffgen.errors import UsageError
from diffgen.types import LoraRef

MAX_NUMBERS = 10_000  # of a list


def parse_lora(name: str, text: str) -> LoraRef:
    """`FILE` or `FILE:WEIGHT`. Raises UsageError for no such file or no such number."""
    path_text, colon, number = text.rpartition(":")
    if not colon or Path(text).expanduser().is_file():
        path_text, number = text, "1"
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise UsageError(f"{name}: there is no file {path}")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageError(f'{name} {text}: the weight "{number}" is not a number')
    return LoraRef(path, weight)


def as_typed(_name: str, text: str) -> str:
    """The text itself."""
    return text


def parse_path(_name: str, text: str) -> Path:
    """A path, with `~` for the user's home."""
    return Path(text).expanduser()


def parse_numbers(name: str, text: str) -> tuple[float, ...]:
    """A comma-separated list of numbers. Raises UsageError naming the word that is none."""
    numbers = []
    for word in text.split(","):
        try:
            numbers.append(float(word))
        except ValueError:
            raise UsageError(f'{name}: "{word.strip()}" is not a number') from None
    return tuple(numbers)


def parse_interval(name: str, text: str) -> tuple[float, float]:
    """`LOW,HIGH`, either end may be left out. Raises UsageError."""
    low, comma, high = text.partition(",")
    if not comma:
        raise UsageError(f"{name} takes LOW,HIGH, for example 0.3,5")
    first, last = parse_numbers(name, f"{low.strip() or 0},{high.strip() or math.inf}")
    return first, last


def parse_seeds(name: str, text: str) -> tuple[int, ...]:
    """`0-3` or `5,7`, as `parse_integers` reads them."""
    return parse_integers(name, text, lowest=0)


def parse_integers(option: str, text: str, *, lowest: int) -> tuple[int, ...]:
    """`4,6,10-20:2` -> (4, 6, 10, 12, ..., 20), each once. Raises UsageError naming the word."""
    numbers: dict[int, None] = {}
    for word in parse_words(option, text):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", word)
        if not match:
            raise UsageError(f'{option}: "{word}" is no number or range such as 4-20:2')
        first, last, stride = (int(part) if part else None for part in match.groups())
        assert first is not None
        if first < lowest:
            raise UsageError(f"{option} must be {lowest} or more, got {first}")
        if stride == 0 or (last is not None and last < first):
            raise UsageError(f'{option}: "{word}" is empty; a range is LOW-HIGH:STRIDE')
        span = range(first, (first if last is None else last) + 1, stride or 1)
        if len(numbers) + len(span) > MAX_NUMBERS:
            raise UsageError(f'{option}: "{word}" makes more than {MAX_NUMBERS} numbers')
        numbers.update(dict.fromkeys(span))
    return tuple(numbers)


def parse_words(option: str, text: str) -> list[str]:
    """The words of a comma-separated list. Raises UsageError for none."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"{option} is an empty list")
    return words
