"""What users write for a LoRA: `NAME|FILE[:WEIGHT[:TE_WEIGHT]][,KEY=VALUE ...]`.

Keys: `unet`, `te`, `te2` (strengths of one network), `in`, `mid`, `out` (factors of the U-Net's
blocks), `lbw` (factors as in `block_weights`), `steps` (`0-0.6`, parts of the run), `start` and
`stop` (numbers of steps).
"""

from __future__ import annotations

import math
import re

from diffgen.errors import UsageError, did_you_mean, shown
from diffgen.files import expanded
from diffgen.settings.block_weights import parse_blocks
from diffgen.types import EmbeddingRef, LoraRef

NETWORKS, BLOCKS, STEPS, LBW = ("unet", "te", "te2"), ("in", "mid", "out"), "steps", "lbw"
NUMBERED = ("start", "stop")  # which steps
KEYS = (*NETWORKS, *BLOCKS, STEPS, *NUMBERED, LBW)
MAX_WEIGHT = 1000.0
# A list of blocks has commas of its own.
_SETTING = re.compile(r"(?P<rest>.+),\s*(?P<key>\w+)=(?P<value>[^,=]*|(?<=lbw=)[^=:]*)", re.DOTALL)
_WEIGHT = re.compile(r"(?P<rest>.+):(?P<number>[^:/\\]*)", re.DOTALL)


def parse_lora(name: str, text: str) -> LoraRef:
    """A LoRA as users write it; a file whose name is the whole text is that file.

    `name` is what an error line calls the setting. Whether the file is there is not checked. Raises
    UsageError for an unknown key and for a wrong value.
    """
    if not text.strip():
        raise UsageError(f"{name} needs a file or a name")
    if expanded(text).is_file():
        return LoraRef(expanded(text))
    where = f"{name} {text}"
    source, settings = _settings(text, where)
    source, weights = _weights(source, where)
    if len(weights) > 1:
        if "te" in settings:
            raise UsageError(f"{where}: the weight of the text encoders is given twice")
        settings["te"] = weights[1]
    unet, te, te2 = (
        _number(where, key, settings[key]) if key in settings else None for key in NETWORKS
    )
    factors = [_number(where, key, settings.get(key, "1")) for key in BLOCKS]
    return LoraRef(
        expanded(source),
        _number(where, "weight", weights[0]) if weights else 1.0,
        unet,
        te,
        te2,
        blocks=(factors[0], factors[1], factors[2]),
        steps=_steps(where, settings[STEPS]) if STEPS in settings else (0.0, 1.0),
        start=step_number(where, "start", settings.get("start", "0")),
        stop=step_number(where, "stop", settings["stop"]) if "stop" in settings else None,
        lbw=parse_blocks(where, settings[LBW]) if LBW in settings else None,
    )


def parse_embedding(name: str, text: str) -> EmbeddingRef:
    """`FILE`, or `WORD=FILE` for another word in prompts than the file's name. Raises UsageError."""
    word, equals, file = text.partition("=")
    if not equals or expanded(text).is_file():
        word, file = "", text
    if not file.strip() or (equals and file != text and not word.strip()):
        raise UsageError(f"{name} {text}: give FILE or WORD=FILE")
    return EmbeddingRef(expanded(file), word.strip() or None)


def step_number(where: str, key: str, value: str) -> int:
    """A step, counted from 0. Raises UsageError."""
    if not re.fullmatch(r"\s*\d{1,6}\s*", value):
        raise UsageError(f"{where}: {key} is the number of a step, not {shown(value)}")
    return int(value)


def _settings(text: str, where: str) -> tuple[str, dict[str, str]]:
    """What stands before the settings at the end, and these."""
    found: dict[str, str] = {}
    rest = text
    while match := _SETTING.fullmatch(rest):
        key = match["key"]
        if key not in KEYS:
            hint = did_you_mean(key, KEYS)
            raise UsageError(
                f'{where}: there is no setting "{key}"{hint or "."} Known: {", ".join(KEYS)}'
            )
        if key in found:
            raise UsageError(f"{where}: {key} is given twice")
        rest, found[key] = match["rest"], match["value"]
    return rest, found


def _weights(source: str, where: str) -> tuple[str, list[str]]:
    """The file or name, and the numbers behind it, at most two; a drive's colon is no weight's."""
    weights: list[str] = []
    while len(weights) < 2 and (match := _WEIGHT.fullmatch(source)):
        if not _is_number(match["number"]):
            # Only what cannot be part of a name is called a wrong number.
            if weights or not match["rest"].endswith(".safetensors"):
                break
            raise UsageError(f'{where}: the weight "{match["number"]}" is not a number')
        source = match["rest"]
        weights.insert(0, match["number"])
        if expanded(source).is_file():
            break
    return source, weights


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(where: str, key: str, value: str) -> float:
    number = float(value) if _is_number(value) else math.nan
    if not abs(number) <= MAX_WEIGHT:
        raise UsageError(
            f"{where}: {key} should be a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, "
            f"not {shown(value)}"
        )
    return number


def _steps(where: str, value: str) -> tuple[float, float]:
    match = re.fullmatch(r"([\d.]*)-([\d.]*)", value.strip())
    ends = [match[1] or "0", match[2] or "1"] if match else []
    low, high = [float(end) if _is_number(end) else math.nan for end in ends] or (1.0, 0.0)
    if not 0.0 <= low < high <= 1.0:
        raise UsageError(
            f"{where}: steps is a part of the run from 0 to 1, such as 0-0.6, not {shown(value)}"
        )
    return low, high
