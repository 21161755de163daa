import pytest

from diffgen.errors import UsageError
from diffgen.settings.axes import suffix_of, title_of
from diffgen.settings.sweep import AXES, BY_LABEL
from diffgen.types import Stretch


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
    ],
)
def test_values_are_read_as_the_setting_reads_one(field, text, value):
    assert AXES[field].read(text) == value
    assert AXES[field].read(value) == value  # as results.json has it


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


def test_guidance_changes_the_solution_and_eta_and_fast_do_not():
    assert {label for label, axis in BY_LABEL.items() if not axis.solves} == {"eta", "fast"}
