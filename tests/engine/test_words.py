"""What is said of words that a model never learned."""

from typing import TYPE_CHECKING

import pytest

from diffgen import Engine, GenerateRequest

if TYPE_CHECKING:
    from tiny_models import TinyModel

STRANGE = "a wizard riding a pony in the fog"


def words_of(engine: Engine, caplog: pytest.LogCaptureFixture, **settings: object) -> list[str]:
    caplog.clear()
    request = GenerateRequest(**{"prompts": [STRANGE], "steps": 1, **settings})
    next(iter(engine.generate(request)))
    return [record.getMessage() for record in caplog.records if "never learned" in record.msg]


def test_words_that_storybook_never_learned_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine.load("storybook", device="cpu", dtype="fp32")
    said = words_of(engine, caplog, prompts=[STRANGE, "a wizard"], negative="blurry")
    assert said == [
        'storybook never learned "wizard" (near it: ghost), "riding", "pony" (near it: horse) '
        "and 1 more"
    ]
    assert words_of(engine, caplog) == []
    assert words_of(engine, caplog, prompts=["a happy cat"]) == ['storybook never learned "happy"']


def test_a_prompt_without_a_thing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What storybook then makes of the sea is a block in it."""

    def said(*prompts: str, **settings: object) -> list[str]:
        caplog.clear()
        request = GenerateRequest(prompts=prompts, steps=1, **settings)
        list(engine.generate(request))
        return [r.getMessage() for r in caplog.records if "draws a thing" in r.msg]

    engine = Engine.load("storybook", device="cpu", dtype="fp32")
    assert said("", "a boat on the sea", negative="night") == []
    assert said("a sunset over the ocean") == []  # an unlearned word is enough
    prompts = ("the sea at sunset", "a cat by the sea", "the snow at night", "the sea at sunset")
    assert said(*prompts) == [
        'storybook draws a thing into every picture; none that it learned is in "the sea at '
        'sunset", "the snow at night"'
    ]
    assert said("under the stars") == []
    engine = Engine.load("storybook", device="cpu", dtype="fp32")
    assert len(said("under the stars")) == 1


def test_other_models_words_are_not_judged(
    sd1: "TinyModel", caplog: pytest.LogCaptureFixture
) -> None:
    assert words_of(Engine.load(sd1.folder, device="cpu", dtype="fp32"), caplog) == []
