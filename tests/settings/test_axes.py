import math
import re
from pathlib import Path

import pytest

from diffgen.bench.folder import OWN
from diffgen.errors import UsageError
from diffgen.settings.axes import suffix_of, title_of
from diffgen.settings.sweep import AXES, BY_LABEL
from diffgen.types import LoraRef, Stretch


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("guidance_scale", "3,5, 7", [3.0, 5.0, 7.0]),
        ("guidance_scale", "3,3.0,5", [3.0, 5.0]),
        ("guidance_scale", "3", 3.0),
        ("guidance_scale", "3,3", 3.0),
        ("guidance_rescale", "0,0.7", [0.0, 0.7]),
        ("guidance_method", "cfg,apg", ["cfg", "apg"]),
        ("eta", "1,0", [1.0, 0.0]),
        ("fast", "off,on", [False, True]),
        ("fast", "on", True),
        ("dtype", "fp32,bf16", ["fp32", "bf16"]),
        ("guidance_interval", "0.3-5, all", [(0.3, 5.0), (0.0, math.inf)]),
        ("guidance_interval", "1e-1-5e+0,2-inf", [(0.1, 5.0), (2.0, math.inf)]),
        ("guidance_interval", "0.3,5", (0.3, 5.0)),
        ("guidance_interval", ",5", (0.0, 5.0)),
        ("model", "sd15, runs/a/model.safetensors", ["sd15", "runs/a/model.safetensors"]),
    ],
)
def test_values_are_read_as_the_setting_reads_one(field, text, value):
    assert AXES[field].read(text) == value
    assert AXES[field].read(value) == value  # as results.json has it


@pytest.mark.parametrize(
    ("typed", "stacks"),
    [
        (["a,b:0.5"], [["a:1"], ["b:0.5"]]),
        (["none,a:0.8,te=0,in=0.5,b"], [[], ["a:0.8,te=0,in=0.5"], ["b:1"]]),
        (["a", "b"], ["a:1", "b:1"]),  # one beside the other, as in generate
        (["a", "none,b"], [["a:1"], ["a:1", "b:1"]]),
        (["a", "a"], ["a:1", "a:1"]),
        (["none"], []),
    ],
)
def test_loras_by_commas_are_one_or_the_other_and_repeated_ones_are_both(typed, stacks):
    axis = AXES["loras"]
    read = axis.read(typed)
    several = isinstance(read, list)
    assert ([axis.plain(each) for each in read] if several else axis.plain(read)) == stacks
    assert axis.read(stacks) == axis.read(read) == read  # as results.json has it, and read before


def test_the_path_of_a_file_with_a_comma_is_one_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.safetensors").touch()
    (tmp_path / "m,n").mkdir()
    assert AXES["loras"].read(["a,b.safetensors"]) == (LoraRef(Path("a,b.safetensors")),)
    assert AXES["model"].read("m,n") == "m,n"


@pytest.mark.parametrize(
    ("field", "text", "marks"),
    [
        ("guidance_interval", "0.3-5,all", ["0.3-5", "all"]),
        ("model", "sd15,a/M y.safetensors,runs/a,runs/b/a", ["sd15", "m-y", "a", "b-a"]),
        ("model", "x/a,y/x/a,z/x/a,./A", ["a", "x-a", "a-2", "a-3"]),
        ("loras", "none,D etail.safetensors:0.8,x/a:1,te=0.5,y/a", None),
    ],
)
def test_files_have_short_names_in_points_and_keys(field, text, marks):
    axis = AXES[field]
    made = axis.marks(axis.read([text] if field == "loras" else text))
    assert made == (marks or ["none", "d-etail-0.8", "a-1-te-0.5", "a"])
    keys = [f"ddim-karras-5{suffix_of([(axis.label, mark)])}.png" for mark in made]
    assert all(re.fullmatch(OWN["cells"], key) for key in keys), keys


def test_scales_for_shares_of_the_steps_are_one_value():
    stretches = (Stretch(7.0, 0.0, 0.6), Stretch(1.0, 0.6, 1.0))
    assert AXES["guidance_scale"].read("7@0-0.6,1@0.6-1") == stretches


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("guidance_scale", "3,x", '--guidance takes a number or 7@0-0.6,1@0.6-1, not "x"'),
        ("guidance_scale", ",", "--guidance is an empty list"),
        ("guidance_rescale", "0,1.5", "must be from 0 to 1, got 1.5"),
        ("guidance_method", "cfg,cfp", 'takes cfg, cfg.. or apg, not "cfp"'),
        ("eta", "0,2", "must be from 0 to 1, got 2"),
        ("eta", "0,nan", "must be a finite number"),
        ("fast", "off,quick", 'takes true or false, not "quick"'),
        ("dtype", "fp32,fp8", 'takes auto, fp32, fp16 or bf16, not "fp8"'),
        ("guidance_interval", "0.3,5,1,9", 'LOW-HIGH, for example 0.3-5, or all, not "0.3"'),
        ("guidance_interval", "all,5-1", 'LOW < HIGH, not "5-1"'),
        ("loras", ["a:0.5,strength=2"], 'there is no setting "strength"'),
        ("loras", [","], "--lora is an empty list"),
        ("model", ",", "--model is an empty list"),
    ],
)
def test_each_value_is_checked(field, text, message):
    name = "--guidance" if field == "guidance_scale" else None
    with pytest.raises(UsageError, match=message):
        AXES[field].read(text, name)


def test_points_as_keys_and_as_text():
    point = (("guidance", 3.0), ("rescale", 0.7), ("method", "cfg++"))
    assert suffix_of(point) == "-guidance_3-rescale_0.7-method_cfg++"
    assert title_of(point) == "guidance 3, rescale 0.7, method cfg++"
    assert (suffix_of(()), title_of(())) == ("", "")


def test_what_changes_the_solution_and_what_the_weights():
    unsolving = {label for label, axis in BY_LABEL.items() if not axis.solves}
    assert unsolving == {"eta", "fast", "dtype"}
    assert {label for label, axis in BY_LABEL.items() if axis.loads} == {"model", "lora", "dtype"}
