"""diffgen.engine.metadata: what a picture says about itself, read back as other programs do."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
from sd_parsers.data import PromptInfo
from sd_parsers.parsers import AUTOMATIC1111Parser

from diffgen import __version__
from diffgen.engine.metadata import make_record, parameters_text, text_chunks
from diffgen.engine.model import Model
from diffgen.engine.origin import Origin
from diffgen.engine.plan import Picture
from diffgen.engine.request import GenerateRequest
from diffgen.text.tokenizer import Tokenizer
from diffgen.weights.checkpoint import CLIP_TOKENIZER

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


def record(*, prompt: str = "a barn", origin: Mapping[str, Any] = {}, **changes: object):
    opened = Model.open("storybook")
    plan = opened.plan(GenerateRequest(**{"prompts": [prompt], "seed": 5} | changes))
    whole = Origin(opened, ()).record | dict(origin)
    made = {"origin": whole, "dtype": "fp32", "device": "cpu", "cut": "", "timings": {"text": 0.1}}
    return make_record(plan, Picture(prompt, 5), **made)


def read_by_sd_parsers(text: str) -> tuple[str, str, PromptInfo]:
    """Prompt, negative prompt and all, as a program reads them that knows no quotes."""
    info = AUTOMATIC1111Parser().parse({"parameters": text})
    (sampler,) = info.samplers
    prompts, negatives = (
        "".join(prompt.value for prompt in some)
        for some in (sampler.prompts, sampler.negative_prompts)
    )
    return prompts, negatives, info


@pytest.mark.parametrize(
    "prompt",
    [
        "a red barn at sunset",
        "barn, sunset, Steps: many",
        'a "quoted" barn \\ here',
        "two\nlines: with, punctuation",
        "Bauernhof im Gr\u00fcnen, \u8d64\u3044\u7d0d\u5c4b",
        "\U0001f33b barn \U0001f9d1\u200d\U0001f33e",
        'a barn, "Model: x",\n{"Seed": 1}, Hashes: {}',
        "a barn\n\nin two parts",
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
    assert_read_by_sd_parsers(text, prompt, negative or "")


def assert_read_by_sd_parsers(text: str, prompt: str, negative: str) -> None:
    *read, info = read_by_sd_parsers(text)
    assert read == [prompt, negative]
    (sampler,) = info.samplers
    assert sampler.name == "DPM++ 2M"
    wanted = {"steps": "9", "seed": "5", "cfg_scale": "4", "scheduler": "Beta"}
    assert sampler.parameters == wanted
    assert info.metadata["Size"] == "256x256"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a barn\nNegative prompt: blue", "a barn\nNegative prompt : blue"),
        ("a sign: Negative prompt:", "a sign: Negative prompt :"),
        ("a\nSteps: 20, Sampler: DDIM, Seed: 3, b", "a\nSteps : 20, Sampler: DDIM, Seed: 3, b"),
    ],
)
def test_a_prompt_that_looks_like_the_grammar_is_taken_for_a_prompt(text: str, read: str) -> None:
    made = record(prompt=text, negative=text, steps=9, sampler="dpmpp_2m", schedule="beta")
    written = parameters_text(made)
    assert read_parameters(written)[:2] == (read, read)
    made["guidance_scale"] = 4.0
    assert_read_by_sd_parsers(parameters_text(made), read, read)
    assert json.loads(text_chunks(made)["diffgen"])["prompt"] == text
    assert written.count("Steps:") == 1


def test_a_space_before_a_colon_changes_no_token() -> None:
    tokenizer = Tokenizer.from_folder(CLIP_TOKENIZER)
    plain, spaced = (f"a barn\nNegative prompt{gap}: blue\nSteps{gap}: 2" for gap in ("", " "))
    assert tokenizer.encode(plain).ids == tokenizer.encode(spaced).ids


def test_settings_have_a1111s_names() -> None:
    made = record(
        sampler="dpmpp_2m_sde",
        schedule="karras",
        rho=5.0,
        steps=7,
        width=64,
        height=128,
        eta=0.5,
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
        "RNG": "CPU",
        "Rho": "5.0",
        "CFG Rescale phi": "0.7",
        "Guidance interval": "0.3 to inf",
        "Precision": "fp32",
        "Version": f"diffgen {__version__}",
    }


@pytest.mark.parametrize("name", ["my, model, Seed: 3", 'the "best"', "a:b", "two\nlines"])
def test_names_have_no_punctuation_of_the_grammar(name: str) -> None:
    """A1111 drops it as well, because few readers know quotes. The record is exact."""
    made = record(origin={"model": name, "vae": f"{name}.safetensors"}, steps=9)
    written = re.sub(r'[,:"\n]', "", name)
    settings = read_parameters(parameters_text(made))[2]
    assert (settings["Model"], settings["VAE"]) == (written, f"{written}.safetensors")
    _, _, info = read_by_sd_parsers(parameters_text(made))
    assert info.samplers[0].model.name == written
    assert info.samplers[0].parameters["seed"] == "5"
    assert json.loads(text_chunks(made)["diffgen"])["model"] == name


def test_hashes_have_a1111s_names() -> None:
    lora = {"file": "x/in, k.safetensors", "weight": 0.5, "sha256": "0" * 64}
    files = {
        "model_path": "y/m.safetensors",
        "model_files": {"m.safetensors": "1" * 64},
        "vae": "z/v.safetensors",
        "vae_files": {"v.safetensors": "2" * 64},
        "loras": [lora | {"data_sha256": "3" * 64}, lora | {"data_sha256": None}],
    }
    text = parameters_text(record(origin=files))
    settings = read_parameters(text)[2]
    assert settings["Model hash"] == "1" * 10
    assert settings["VAE hash"] == "2" * 10
    assert settings["Lora hashes"] == "in k: " + "3" * 12
    assert settings["Lora"] == "in k:0.5 in k:0.5"
    assert read_by_sd_parsers(text)[2].samplers[0].model.hash == "1" * 10


def test_the_picture_says_nothing_that_differs_between_equal_commands() -> None:
    made = record()
    assert json.loads(text_chunks(made)["diffgen"]).keys() == made.keys() - {"timings"}
    assert made["format"] == 1


def test_explicit_levels_are_listed() -> None:
    settings = read_parameters(parameters_text(record(sigmas=[9.5, 1.25], sampler="euler")))[2]
    assert settings["Sigmas"] == "9.5 1.25 0"
    assert "Schedule type" not in settings


def test_the_record_is_plain_json() -> None:
    made = record(guidance_interval=(0.5, math.inf))
    assert made["guidance_interval"] == [0.5, None]
    assert record()["guidance_interval"] is None
    chunk = json.loads(text_chunks(made)["diffgen"], parse_constant=pytest.fail)
    assert chunk | {"timings": made["timings"]} == made
