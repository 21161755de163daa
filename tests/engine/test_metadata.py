"""diffgen.engine.metadata: what a picture says about itself, read back as other programs do."""

import json
import math
import re
from dataclasses import replace

import pytest

from diffgen import __version__
from diffgen.engine.metadata import make_record, parameters_text, text_chunks
from diffgen.engine.model import Model
from diffgen.engine.request import GenerateRequest, Picture

# A1111's own: a pair of the last line, and how many make it a line of parameters.
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
LEAST_PAIRS = 3


def read_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings, as A1111 reads them."""
    *lines, last = text.strip().split("\n")
    assert len(PAIR.findall(last)) >= LEAST_PAIRS
    texts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in lines:
        words = line.strip()
        if words.startswith("Negative prompt:"):
            negative, words = True, words[16:].strip()
        texts[negative].append(words)
    settings = {
        name: json.loads(value) if value.startswith('"') else value
        for name, value in PAIR.findall(last)
    }
    return "\n".join(texts[False]), "\n".join(texts[True]), settings


def record(*, prompt: str = "a barn", model: str = "storybook", **changes: object):
    request = GenerateRequest(**{"prompts": [prompt], "seed": 5} | changes)
    opened = Model.open("storybook")
    return make_record(
        opened.plan(request),
        Picture(prompt, 5),
        model=replace(opened, name=model),
        dtype="fp32",
        device="cpu",
        cut="",
        timings={"text": 0.1},
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "a red barn at sunset",
        "barn, sunset, Steps: many",
        'a "quoted" barn \\ here',
        "two\nlines: with, punctuation",
        "Bauernhof im Gr\u00fcnen, \u8d64\u3044\u7d0d\u5c4b",
        "\U0001f33b barn \U0001f9d1\u200d\U0001f33e",
        "",
    ],
)
@pytest.mark.parametrize("negative", [None, "blue, night: 1\nand fog"])
def test_text_goes_through_a1111s_grammar(prompt: str, negative: str | None) -> None:
    text = parameters_text(record(prompt=prompt, negative=negative, steps=9))
    read, read_negative, settings = read_parameters(text)
    assert (read, read_negative) == (prompt, negative or "")
    assert settings["Steps"] == "9"
    assert settings["Seed"] == "5"


def test_settings_have_a1111s_names() -> None:
    made = record(
        sampler="dpmpp_2m_sde",
        schedule="karras",
        rho=5.0,
        steps=7,
        width=64,
        height=128,
        options={"eta": 0.5},
        guidance_scale=6.5,
        guidance_rescale=0.7,
        guidance_interval=(0.3, math.inf),
    )
    assert read_parameters(parameters_text(made))[2] == {
        "Steps": "7",
        "Sampler": "DPM++ 2M SDE",
        "Schedule type": "Karras",
        "CFG scale": "6.5",
        "Seed": "5",
        "Size": "64x128",
        "Model": "storybook",
        "Eta": "0.5",
        "Rho": "5.0",
        "CFG Rescale phi": "0.7",
        "Guidance interval": "0.3 to inf",
        "Precision": "fp32",
        "Version": f"diffgen {__version__}",
    }


@pytest.mark.parametrize("model", ["my, model", "a: b", 'the "best"', "back\\slash, too"])
def test_values_with_punctuation_are_quoted(model: str) -> None:
    assert read_parameters(parameters_text(record(model=model)))[2]["Model"] == model


def test_explicit_levels_are_listed() -> None:
    settings = read_parameters(parameters_text(record(sigmas=[9.5, 1.25], sampler="euler")))[2]
    assert settings["Sigmas"] == "9.5 1.25 0"
    assert "Schedule type" not in settings


def test_the_record_is_plain_json() -> None:
    made = record(guidance_interval=(0.5, math.inf))
    assert made["guidance_interval"] == [0.5, None]
    assert record()["guidance_interval"] is None
    chunk = text_chunks(made)["diffgen"]
    assert json.loads(chunk, parse_constant=pytest.fail) == made
