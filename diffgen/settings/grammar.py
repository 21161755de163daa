"""The small grammars of values that are no plain numbers or words."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

from diffgen.errors import UsageError, shown
from diffgen.files import expanded
from diffgen.types import Stretch

MAX_NUMBERS = 10_000  # of a list
MAX_OUTPAINTED = 16_384  # pixels on a side
NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
EVERY_LEVEL = "all"
FACTOR = re.compile(r"\d(\.\d{1,3})?")
ENLARGEMENT = re.compile(r"(\d{1,2}(\.\d{1,3})?)[xX]|\d{1,5}[xX]\d{1,5}")


def as_typed(_name: str, text: str) -> str:
    """The text itself."""
    return text


def parse_path(_name: str, text: str) -> Path:
    """A path, with `~` for the user's home."""
    return expanded(text)


def parse_numbers(name: str, text: str) -> tuple[float, ...]:
    """A comma-separated list of numbers. Raises UsageError naming the word that is none."""
    numbers = []
    for word in text.split(","):
        try:
            numbers.append(float(word))
        except ValueError:
            raise UsageError(f'{name}: "{word.strip()}" is not a number') from None
    return tuple(numbers)


def parse_size(name: str, text: str) -> tuple[int, int]:
    """`1024x768`, width and height in pixels. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[x,]\s*(\d{1,6})\s*", text.lower())
    if not match or not int(match[1]) or not int(match[2]):
        raise UsageError(f'{name} takes a size such as 1024x768, not "{text}"')
    return int(match[1]), int(match[2])


def parse_point(name: str, text: str) -> tuple[int, int]:
    """`X,Y` in pixels. Raises UsageError."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
    if not match:
        raise UsageError(f'{name} takes X,Y in pixels, for example 0,0, not "{text}"')
    return int(match[1]), int(match[2])


def parse_guidance(name: str, text: str) -> float | tuple[Stretch, ...]:
    """A number, or scales for shares of the steps as `parse_stretches` reads them."""
    if "@" in text:
        return parse_stretches(name, text)
    try:
        return float(text)
    except ValueError:
        raise UsageError(f'{name} takes a number or 7@0-0.6,1@0.6-1, not "{text}"') from None


def parse_stretches(name: str, text: str) -> tuple[Stretch, ...]:
    """`7@0-0.6,1@0.6-1`: scales for shares of the steps. Raises UsageError."""
    number = r"([\d.]+(?:e[-+]?\d+)?)"
    found = []
    for word in parse_words(name, text):
        match = re.fullmatch(rf"{number}@{number}-{number}", word.lower().replace(" ", ""))
        try:
            scale, start, end = map(float, match.groups() if match else ())
        except ValueError:
            raise UsageError(
                f'{name}: "{word}" is no scale for a share of the steps, such as 7@0-0.6'
            ) from None
        if not (0.0 <= start < end <= 1.0 and math.isfinite(scale)):
            raise UsageError(f'{name}: "{word}" is no share of the steps from 0 to 1')
        found.append(Stretch(scale, start, end))
    ordered = sorted(found, key=lambda each: each.start)
    if any(a.end > b.start for a, b in pairwise(ordered)):
        raise UsageError(f"{name}: two scales for the same steps in {text}")
    return tuple(ordered)


def parse_interval(name: str, text: str) -> tuple[float, float]:
    """`LOW-HIGH` or `LOW,HIGH`, where either end may be left out, or `all`. Raises UsageError."""
    words = text.strip().lower()
    if words in (EVERY_LEVEL, ","):
        return 0.0, math.inf
    match = re.fullmatch(rf"({NUMBER})?\s*[-,]\s*({NUMBER}|inf)?", words)
    if not match or not (match[1] or match[2]):
        raise UsageError(
            f"{name} takes LOW-HIGH, for example 0.3-5, or {EVERY_LEVEL}, not {shown(text)}"
        )
    low, high = float(match[1] or 0), float(match[2] or math.inf)
    if low >= high:
        raise UsageError(f"{name} takes LOW-HIGH with LOW < HIGH, not {shown(text)}")
    return low, high


def interval_text(interval: tuple[float, float]) -> str:
    """An interval as `parse_interval` reads it."""
    low, high = interval
    return EVERY_LEVEL if interval == (0.0, math.inf) else f"{low:.15g}-{high:.15g}"


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


def parse_sides(name: str, text: str) -> tuple[int, ...]:
    """`PX` for all sides or `L,R,T,B`, in pixels. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if len(words) not in (1, 4) or not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"{name} takes pixels for all sides or L,R,T,B, for example 0,64,0,0")
    sides = tuple(int(word) for word in words) * (4 // len(words))
    if not 0 < max(sides) <= MAX_OUTPAINTED:
        raise UsageError(f"{name} takes from 1 to {MAX_OUTPAINTED} pixels for a side, 0 for others")
    return sides


def parse_enlargement(name: str, text: str) -> str:
    """`2x`, `1.5x` or `WxH`, as typed; `2` is `2x`. Raises UsageError."""
    if FACTOR.fullmatch(text):
        return f"{text}x"
    if not ENLARGEMENT.fullmatch(text):
        raise UsageError(f"{name} takes a factor such as 2x, or a size such as 1024x768")
    return text.lower()


def parse_interpolation(name: str, text: str) -> str:
    """`A => B`, as typed. Raises UsageError for anything but two prompts."""
    if len(parts := text.split("=>")) != 2 or not all(map(str.strip, parts)):
        raise UsageError(f"{name} takes two prompts, as in 'a cat => a dog'")
    return text


def parse_towards(name: str, text: str) -> str:
    """`TEXT:SHARE` with a share from 0 to 1, as typed. Raises UsageError."""
    words, colon, share = text.rpartition(":")
    try:
        fits = bool(colon) and bool(words.strip()) and 0.0 <= float(share) <= 1.0
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(
            f"{name} takes TEXT:SHARE with a share from 0 to 1, for example 'a dog:0.5'"
        )
    return text


def parse_variation(name: str, text: str) -> str:
    """`SEED:SHARE` with a share from 0 to 1, as typed. Raises UsageError."""
    seed, _, share = text.partition(":")
    try:
        fits = 0 <= int(seed) < 2**64 and 0.0 <= float(share) <= 1.0
    except ValueError:
        fits = False
    if not fits:
        raise UsageError(f"{name} takes SEED:SHARE with a share from 0 to 1, for example 7:0.2")
    return text
