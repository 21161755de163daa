"""`<lora:...>` in prompts, as A1111 and its extension LoRA Block Weight read it.

<lora:name:w>         weight w, by default 1
<lora:name:w:u>       weight w in the text encoders, u in the U-Net; or te=w, unet=u
<lora:name:w:lbw=OUTD>    factors for blocks: a preset, or 12, 17, 20 or 26 numbers
<lora:name:w:start=5:stop=10>, step=5-10    the U-Net has it in these steps, counted from 0
"""

from __future__ import annotations

import math
import re

from diffgen.errors import UsageError, did_you_mean, shown
from diffgen.settings.block_weights import is_blocks, parse_blocks
from diffgen.settings.loras import step_number
from diffgen.text.prompt import LoraTag

MAX_LORA_WEIGHT = 100.0
KEYS = ("te", "unet", "lbw", "start", "stop", "step")
# Settings of A1111's extensions that diffgen has nothing for.
UNREAD = {
    "lbwe": "chooses layers by pieces of their names; choose blocks by lbw=",
    "dyn": "cuts ranks off a LyCORIS, which is not done here",
    "x": "is a number for a preset of your own; write that as its numbers",
}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_SPAN = re.compile(r"(\d{1,6})\s*-\s*(\d{1,6})")


def parse_lora_tag(text: str) -> LoraTag:
    """What stands between `<lora:` and `>`. Raises UsageError."""
    where = shown(f"<lora:{text}>")
    name, *items = (part.strip() for part in text.split(":"))
    told = _told(where, items)
    if not name:
        raise UsageError(f"{where} names no LoRA; write <lora:NAME:WEIGHT>")
    start, stop = _steps(where, told)
    return LoraTag(
        name,
        _weight(where, told.get("te", "1")),
        _weight(where, told["unet"]) if "unet" in told else None,
        parse_blocks(where, told["lbw"]) if "lbw" in told else None,
        start,
        stop,
    )


def _told(where: str, items: list[str]) -> dict[str, str]:
    """All settings by name; the first two numbers are te and unet, and what is no number lbw."""
    unnamed = [item for item in items if "=" not in item]
    blocks = [item for item in unnamed if is_blocks(item)]
    numbers = [item for item in unnamed if item not in blocks]
    told = dict([*zip(("te", "unet"), numbers, strict=False), *(("lbw", each) for each in blocks)])
    for key, equals, value in (item.partition("=") for item in items):
        key = key.strip()
        if equals and key not in KEYS:
            why = UNREAD.get(key)
            hint = did_you_mean(key, KEYS) or f"; there are {', '.join(f'{k}=' for k in KEYS)}"
            raise UsageError(f"{where}: {key}= {why}" if why else f"{where}: no {key}={hint}")
        told |= {key: value.strip()} if equals else {}
    if len(numbers) > 2 or len(blocks) > 1:
        raise UsageError(
            f"{where} has too many parts; write <lora:NAME:WEIGHT> or "
            "<lora:NAME:TEXT_WEIGHT:UNET_WEIGHT>"
        )
    return told


def _weight(where: str, text: str) -> float:
    weight = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not abs(weight) <= MAX_LORA_WEIGHT:
        raise UsageError(
            f"{where}: a weight is a number from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}, not "
            f"{shown(text)}"
        )
    return weight


def _steps(where: str, told: dict[str, str]) -> tuple[int, int | None]:
    if "step" in told:
        if not (span := _SPAN.fullmatch(told["step"])):
            raise UsageError(f"{where}: step is two numbers of steps, as 5-10")
        return int(span[1]), int(span[2])
    start = step_number(where, "start", told.get("start", "0"))
    return start, step_number(where, "stop", told["stop"]) if "stop" in told else None
