"""LoRAs that prompts ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_adapters import write

from diffgen import Engine, GenerateRequest
from diffgen.engine.metadata import parameters_text
from diffgen.errors import UsageError
from diffgen.types import LoraRef

if TYPE_CHECKING:
    from tiny_models import TinyModel

SETTINGS = {"seed": 3, "steps": 2, "sampler": "euler", "prompt_style": "a1111"}


@pytest.fixture(scope="module")
def lora(sd1: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loras") / "style.safetensors"
    return write(path, sd1.folder, 1, ("to_q", "to_v", "conv1", "fc1"))


@pytest.fixture(scope="module")
def engine(sd1: TinyModel) -> Engine:
    return Engine.load(sd1.folder, device="cpu", dtype="fp32")


def pictures(engine: Engine, *prompts: str, **settings: object):
    return list(engine.generate(GenerateRequest(prompts=prompts, **SETTINGS, **settings)))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_prompt_is_drawn_with_its_own(
    engine: Engine, sd1, lora: Path, batch_size: int
) -> None:
    """To the bit as with --lora, whatever the prompts around it ask for."""
    prompts = ["a barn", f"a barn <lora:{lora}:0.7>", f"a barn<lora:{lora}:0.5:0.2>", "a cat"]
    drawn = pictures(engine, *prompts, batch_size=batch_size)
    for made, refs, plain in (
        (drawn[0], [], "a barn"),
        (drawn[1], [LoraRef(lora, 0.7)], "a barn "),
        (drawn[2], [LoraRef(lora, 0.5, unet=0.2)], "a barn"),
        (drawn[3], [], "a cat"),
    ):
        fresh = Engine.load(sd1.folder, device="cpu", dtype="fp32", loras=refs)
        (alone,) = pictures(fresh, plain)
        assert made.image.tobytes() == alone.image.tobytes()
    assert drawn[0].image.tobytes() != drawn[1].image.tobytes() != drawn[2].image.tobytes()
    assert engine.loras == ()


def test_the_record_tells_them_from_those_of_the_model(engine: Engine, lora: Path) -> None:
    plain, tagged = pictures(engine, "a barn", f"a barn <lora:{lora}:0.7>")
    assert plain.record["loras"] == []
    assert "prompt_loras" not in plain.record
    assert tagged.record["loras"] == []
    (told,) = tagged.record["prompt_loras"]
    assert (told["file"], told["weight"]) == (str(lora), 0.7)
    assert f'Lora hashes: "style: {told["data_sha256"][:12]}"' in parameters_text(tagged.record)


def test_the_models_own_stay_and_come_back(sd1, lora: Path) -> None:
    engine = Engine.load(sd1.folder, device="cpu", dtype="fp32", loras=[LoraRef(lora, 0.3)])
    before, with_tag, after = pictures(engine, "a", f"a<lora:{lora}:0.5>", "a")
    assert before.image.tobytes() == after.image.tobytes() != with_tag.image.tobytes()
    assert [each["weight"] for each in with_tag.record["loras"]] == [0.3]
    assert engine.loras == (LoraRef(lora, 0.3),)


def test_one_that_is_nowhere_is_refused_before_the_first_picture(engine: Engine) -> None:
    request = GenerateRequest(prompts=["a", "a <lora:missing:1>"], **SETTINGS)
    with pytest.raises(UsageError, match="<lora:missing>: there is no file"):
        next(engine.generate(request))


def test_in_plain_style_they_are_words(engine: Engine) -> None:
    settings = {**SETTINGS, "prompt_style": "plain"}
    (made,) = engine.generate(GenerateRequest(prompts=["a <lora:missing:1>"], **settings))
    assert "prompt_loras" not in made.record
