"""LoRA Block Weight, A1111's extension: one factor for each entry of a U-Net.

Names and presets are those of https://github.com/hako-mikan/sd-webui-lora-block-weight. BASE is the
text encoders; IN00 to IN11, M00 and OUT00 to OUT11 are the entries of LDM's three lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from diffgen.errors import UsageError, did_you_mean, shown

BLOCKS = (
    "BASE",
    *(f"IN{number:02}" for number in range(12)),
    "M00",
    *(f"OUT{number:02}" for number in range(12)),
)
MAX_FACTOR = 100.0
FLUX = 61  # numbers of a list for Flux


def _chosen(*spans: tuple[str, str]) -> tuple[str, ...]:
    """Names of blocks, of the first and the last of each span."""
    ends = [(BLOCKS.index(first), BLOCKS.index(last)) for first, last in spans]
    return tuple(name for first, last in ends for name in BLOCKS[first : last + 1])


_BASE, _MIDDLE = ("BASE", "BASE"), ("M00", "M00")
# The blocks of a shorter list: those with attention (17, 12), those that SDXL has (20, 12).
_DEEP = (("IN04", "IN05"), ("IN07", "IN08"), _MIDDLE)
LISTS: Mapping[int, Sequence[str]] = {
    26: BLOCKS,
    20: _chosen(_BASE, ("IN00", "IN08"), _MIDDLE, ("OUT00", "OUT08")),
    17: _chosen(_BASE, ("IN01", "IN02"), *_DEEP, ("OUT03", "OUT11")),
    12: _chosen(_BASE, *_DEEP, ("OUT00", "OUT05")),
}


def _preset(digits: str) -> tuple[float, ...]:
    return _spread([float(digit) for digit in digits])


def _spread(factors: Sequence[float]) -> tuple[float, ...]:
    """A list of any length as one for all blocks; those that it leaves out get 0."""
    given = dict(zip(LISTS[len(factors)], factors, strict=True))
    return tuple(given.get(name, 0.0) for name in BLOCKS)


PRESETS: Mapping[str, tuple[float, ...]] = {
    "NONE": _preset("00000000000000000"),
    "ALL": _preset("11111111111111111"),
    "INS": _preset("11110000000000000"),
    "IND": _preset("10001110000000000"),
    "INALL": _preset("11111110000000000"),
    "MIDD": _preset("10001111111100000"),
    "OUTD": _preset("10000000111100000"),
    "OUTS": _preset("10000000000011111"),
    "OUTALL": _preset("10000000111111111"),
    "ALL0.5": tuple(factor / 2 for factor in _preset("11111111111111111")),
}


def parse_blocks(where: str, text: str) -> tuple[float, ...]:
    """The 26 factors of a preset, or of a list of 12, 17, 20 or 26 numbers.

    `where` begins the line of a mistake. Raises UsageError.
    """
    text = text.strip()
    if text in PRESETS:
        return PRESETS[text]
    items = [item.strip() for item in text.split(",")]
    if len(items) == 1:
        known = did_you_mean(text, PRESETS) or f"; there are {', '.join(PRESETS)}"
        raise UsageError(
            f"{where}: lbw has no preset {shown(text)}{known} (write one of your own as its numbers)"
        )
    if len(items) not in LISTS:
        flux = ", which are for Flux" if len(items) == FLUX else ""
        raise UsageError(f"{where}: lbw takes 12, 17, 20 or 26 numbers, not {len(items)}{flux}")
    return _spread([_factor(where, item) for item in items])


def is_blocks(text: str) -> bool:
    """Whether a text is meant for blocks where it stands without a name, as it once did."""
    return text in PRESETS or text.count(",") + 1 in LISTS


def _factor(where: str, text: str) -> float:
    if text[:1] in ("R", "U", "X"):
        raise UsageError(
            f"{where}: lbw's {text[0]} is a number drawn or given elsewhere; write the number"
        )
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not abs(factor) <= MAX_FACTOR:
        raise UsageError(
            f"{where}: lbw takes numbers from {-MAX_FACTOR:g} to {MAX_FACTOR:g}, not {shown(text)}"
        )
    return factor
