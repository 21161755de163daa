"""Pictures between two prompts: the ends are those prompts' own, and nonsense is refused."""

from typing import Any

import numpy as np
import pytest

from diffgen import Engine, GenerateRequest
from diffgen.batch.requests import from_record
from diffgen.engine.drawing import GeneratedImage
from diffgen.errors import UsageError


def draw(engine: Engine, prompt: str, **settings: Any) -> GeneratedImage:
    request = {"prompts": [prompt], "seed": 3, "steps": 3, "sampler": "euler", **settings}
    (made,) = engine.generate(GenerateRequest(**request))
    return made


def pixels(picture: GeneratedImage) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def test_the_ends_are_the_two_prompts_to_the_bit(engine: Engine) -> None:
    barn, boat = draw(engine, "a red barn"), draw(engine, "a blue boat")
    assert (pixels(draw(engine, "a red barn", towards="a blue boat:0")) == pixels(barn)).all()
    assert (pixels(draw(engine, "a red barn", towards="a blue boat:1")) == pixels(boat)).all()
    half = pixels(draw(engine, "a red barn", towards="a blue boat:0.5"))
    assert (half != pixels(barn)).any()
    assert (half != pixels(boat)).any()


def test_its_record_makes_it_again(engine: Engine) -> None:
    made = draw(engine, "a red barn", towards="a (blue:1.2) boat:0.25")
    assert from_record(made.record)["towards"] == "a (blue:1.2) boat:0.25"
    again = draw(engine, made.record["prompt"], towards=made.record["towards"])
    assert (pixels(again) == pixels(made)).all()


@pytest.mark.parametrize(
    ("towards", "message"),
    [
        ("a boat AND a dog:0.5", "AND in different numbers"),
        ("a boat <lora:x:1>:0.5", "a LoRA cannot come in between"),
    ],
)
def test_what_has_no_middle_is_refused(engine: Engine, towards: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        engine.plan(GenerateRequest(prompts=["a red barn"], towards=towards, prompt_style="a1111"))
