"""diffgen.text.lora_tags: LoRAs in prompts with factors for blocks and parts of a run."""

from __future__ import annotations

import pytest

from diffgen.errors import UsageError
from diffgen.settings.block_weights import PRESETS
from diffgen.text.lora_tags import parse_lora_tag
from diffgen.text.prompt import LoraTag

OUTD = PRESETS["OUTD"]
TWELVE = ",".join("1" * 12)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("x", LoraTag("x")),
        ("x:0.5:unet=0.2", LoraTag("x", 0.5, 0.2)),
        ("x:1:lbw=OUTD", LoraTag("x", lbw=OUTD)),
        ("x: lbw = OUTD", LoraTag("x", lbw=OUTD)),
        ("x:0.8:OUTD", LoraTag("x", 0.8, lbw=OUTD)),
        ("x:0.8:0.6:OUTD", LoraTag("x", 0.8, 0.6, lbw=OUTD)),
        (f"x:1:{TWELVE}", parse_lora_tag(f"x:lbw={TWELVE}")),
        ("x:lbw=ALL:stop=10", LoraTag("x", lbw=PRESETS["ALL"], stop=10)),
        ("x:1:start=3", LoraTag("x", start=3)),
        ("x:1:step=5-10", LoraTag("x", start=5, stop=10)),
    ],
)
def test_spellings(text: str, tag: LoraTag) -> None:
    assert parse_lora_tag(text) == tag


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:y", 'a weight is a number from -100 to 100, not "y"'),
        ("x:1:0.5:2", "has too many parts; write <lora:NAME:WEIGHT>"),
        ("x:nan", "a weight is a number"),
        ("x:1:te=nan", "a weight is a number"),
        ("x:101", "a weight is a number"),
        ("x:0@0,1@0.5", "a weight is a number"),
        (" :1", "names no LoRA; write <lora:NAME:WEIGHT>"),
        ("x:1:lbw=MINE", 'lbw has no preset "MINE"'),
        ("x:1:lbw=1,0,1", "lbw takes 12, 17, 20 or 26 numbers, not 3"),
        ("x:1:lbw=OUTD:lbwe=ATTNDEEPON", "lbwe= chooses layers by pieces of their names"),
        ("x:1:1:dyn=8", "dyn= cuts ranks off a LyCORIS"),
        ("x:1:lwb=OUTD", 'no lwb=. Did you mean "lbw"'),
        ("x:1:step=5", "step is two numbers of steps, as 5-10"),
        ("x:1:stop=half", 'stop is the number of a step, not "half"'),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_lora_tag(text)
    assert message in str(caught.value)
    assert f"<lora:{text}>" in str(caught.value)
