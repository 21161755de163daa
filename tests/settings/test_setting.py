"""The table of settings: declared once, read by every door."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.settings.model import Adapters, Source
from diffgen.settings.output import Output, Talk
from diffgen.settings.picture import Number, Size
from diffgen.settings.prompting import Prompting, Reading
from diffgen.settings.running import Machine, Threads
from diffgen.settings.sampling import Guidance, Sampling
from diffgen.settings.setting import changed, each_row, find, plain, rows, words
from diffgen.settings.sweep import Axes, Comparing, Measuring, Report
from diffgen.settings.training import QuickLora, QuickOverrides, Training

GENERATE = (Reading, Prompting, Size, Number, Sampling, Guidance, Source, Adapters)
GENERATE = (*GENERATE, Output, Machine, Threads, Talk)
SWEEP = (Axes, Measuring, Comparing, Report)
TRAIN = (Training, QuickLora, QuickOverrides)


@pytest.mark.parametrize("groups", [GENERATE, SWEEP, TRAIN])
def test_no_word_means_two_settings(groups: tuple[type, ...]) -> None:
    seen: dict[str, str] = {}
    for row in each_row(*groups):
        for word in row.spellings:
            assert seen.setdefault(word, row.name) == row.name, word


@pytest.mark.parametrize("row", list(each_row(*GENERATE, *SWEEP, *TRAIN)), ids=lambda row: row.name)
def test_every_setting_has_what_help_shows(row) -> None:
    assert row.panel
    assert row.setting.help
    assert row.setting.help.endswith("...") or not row.setting.help.endswith(".")
    assert row.setting.flags.startswith("-")


def test_a_setting_is_found_by_any_spelling() -> None:
    for word in ("guidance", "guidance_scale", "cfg-scale", "CFG scale", "g", "--guidance"):
        row = find(word, *GENERATE)
        assert row is not None
        assert row.name == "guidance_scale"
    assert find("nothing", *GENERATE) is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", "12", 12),
        ("steps", 12.0, 12),
        ("guidance_scale", "7", 7.0),
        ("sigmas", "14.6,5,1", (14.6, 5.0, 1.0)),
        ("sigmas", [14.6, 5, 1], (14.6, 5.0, 1.0)),
        ("guidance_interval", "0.3,", (0.3, math.inf)),
        ("fast", "yes", True),
        ("fast", False, False),
        ("negative", "fog", "fog"),
        ("width", None, None),
    ],
)
def test_values_come_from_text_and_from_json(name: str, value: object, expected: object) -> None:
    assert rows(GenerateRequest)[name].read(value) == expected


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("steps", "many", 'steps takes a whole number, not "many"'),
        ("steps", 1.5, "steps takes a whole number, not 1.5"),
        ("steps", True, "steps takes a whole number, not true"),
        ("steps", 0, "steps must be at least 1, got 0"),
        ("steps", [1], "steps takes a whole number"),
        ("guidance_scale", "nan", "guidance scale must be a finite number"),
        ("guidance_rescale", 2, "guidance rescale must be from 0 to 1, got 2"),
        ("negative", 7, "negative takes text, not 7"),
        ("fast", "perhaps", 'fast takes true or false, not "perhaps"'),
        ("sampler", "eulr", 'unknown sampler "eulr"'),
        ("sigmas", "a,b", '"a" is not a number'),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object, complaint: str) -> None:
    with pytest.raises(UsageError) as failure:
        rows(GenerateRequest)[name].read(value)
    assert complaint in str(failure.value)


def test_a_choice_is_one_of_few() -> None:
    with pytest.raises(UsageError, match="device takes auto, cpu, cuda or mps, not"):
        rows(Machine)["device"].read("gpu")


def test_a_name_that_holds_a_spacing_sets_it() -> None:
    found = Sampling.of({"sampler": "DPM++ 2M Karras"})
    assert (found.sampler, found.schedule) == ("dpmpp_2m", "karras")
    found = Sampling.of({"sampler": "DPM++ 2M Karras", "schedule": "beta"})
    assert (found.sampler, found.schedule) == ("dpmpp_2m", "beta")


def test_settings_survive_json_and_the_command_line() -> None:
    request = GenerateRequest(
        prompts=["x"], sampler="ddim", sigmas=(9.0, 1.0), guidance_interval=(0.3, math.inf)
    )
    stored = json.loads(json.dumps(plain(request), allow_nan=False))
    table = rows(GenerateRequest)
    read = {name: table[name].read(value) for name, value in stored.items()}
    assert GenerateRequest(prompts=["x"], **read) == request
    assert sorted(words(request)) == sorted(
        ["--sampler", "ddim", "--sigmas", "9,1", "--guidance-interval", "0.3,"]
    )
    assert changed(Source(vae=Path("v"), zero_snr=False)) == {"vae": "v", "zero_snr": False}
    assert words(Source(zero_snr=False)) == ["--no-zero-snr"]
    assert words(Prompting(negative="-fog")) == ["--negative=-fog"]
