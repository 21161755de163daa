"""What steers a picture, checked against the model before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffgen.engine.plan import GeneratePlan
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import NoiseConfig, Stretch

SD1 = ModelConfig(
    family="sd1",
    text=(ClipTextConfig(),),
    unet=UNetConfig(),
    vae=VaeConfig(),
    schedule=NoiseConfig(),
)
OWN_WORDS = replace(SD1, text=(ClipTextConfig(vocab_size=2000),))
LCM = replace(SD1, unet=UNetConfig(guidance_dim=256))


def plan(config: ModelConfig = SD1, prompt: str = "a (red:1.2) barn", **settings) -> GeneratePlan:
    request = GenerateRequest(prompts=[prompt], **{"steps": 10, **settings})
    return GeneratePlan.make(request, config)


def test_clips_vocabulary_reads_a1111s_syntax() -> None:
    assert plan().prompt_style == "a1111"
    assert plan(OWN_WORDS).prompt_style == "plain"
    assert plan(OWN_WORDS, prompt_style="comfy").prompt_style == "comfy"
    assert plan(replace(SD1, text=(ClipTextConfig(vocab_size=49_410),))).prompt_style == "a1111"


def test_texts_of_the_encoders() -> None:
    assert plan().texts("x")[1] is None
    positive, negative = plan(negative="(n:1.3) AND m").texts("x AND y")
    assert [len(each.terms) for each in positive] == [2]
    assert negative is not None
    assert [len(each.terms) for each in negative] == [1]


def test_a_schedule_of_scales() -> None:
    stretches = (Stretch(7.0, 0.0, 0.6), Stretch(2.0, 0.8, 1.0))
    made = plan(guidance_schedule=stretches)
    assert made.guidance_scale == 7.0
    scales = [made.guidance.scale(sigma) for sigma in made.sampling.sigmas[:-1]]
    assert scales == [7.0] * 6 + [1.0] * 2 + [2.0] * 2
    assert plan(guidance_scale=stretches).guidance == made.guidance  # as --guidance takes it


def test_cfg_plus_plus_has_a_scale_of_its_own() -> None:
    made = plan(guidance_method="cfg++", sampler="ddim")
    assert made.guidance_scale == 0.6
    assert made.guidance.scales[-1][1] == pytest.approx(0.6)  # the last step ends without noise


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (SD1, {"guidance_method": "cfg++", "sampler": "dpmpp_2m"}, "cfg++ is defined for ddim"),
        (SD1, {"guidance_method": "cfg++", "guidance_scale": 7.5}, "scales from 0 to 1"),
        (SD1, {"pag": -1.0}, "pag must be"),
        (SD1, {"apg_norm": 0.0}, "apg norm must be"),
        (replace(SD1, unet=UNetConfig(mid_depth=None)), {"pag": 3.0}, "no attention in its mid"),
        (LCM, {"pag": 3.0}, "takes a guidance scale as an input"),
        (LCM, {"guidance_method": "apg"}, "takes a guidance scale as an input"),
        (SD1, {"prompt_2": "x"}, "need a second text encoder"),
        (SD1, {"negative_2": "x"}, "need a second text encoder"),
        (SD1, {"crop": (0, 0)}, "need a model like SDXL"),
        (SD1, {"prompt": "(a:1e9)"}, "weights are from -10 to 10"),
        (SD1, {"negative": "(a:nan)"}, "weights are from -10 to 10"),
        (
            SD1,
            {"guidance_scale": (Stretch(7.0),), "guidance_schedule": (Stretch(7.0),)},
            "give the scales for shares of the steps once",
        ),
    ],
)
def test_refusals(config: ModelConfig, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(config, **settings)
    assert message in str(caught.value)
    assert not str(caught.value).endswith(".")
