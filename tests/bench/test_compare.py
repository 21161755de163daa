from dataclasses import replace

import pytest
from sweep_examples import MACHINE, REFERENCE, cell, results, timing

from diffgen.bench.compare import Limits, compare
from diffgen.bench.results import Timing
from diffgen.bench.uncertainty import statistic
from diffgen.errors import UsageError

OLD = results([cell(steps=10), cell(steps=20, psnr=35.0)])


def changed(**changes):
    return results([cell(steps=10, **changes), cell(steps=20, psnr=35.0)])


def lines(new, limits=None, old=OLD):
    return compare(old, new, limits or Limits()).lines()


def test_equal_sweeps_pass():
    made = compare(OLD, OLD, Limits())
    assert not made.failed
    assert made.lines() == [
        "ddim-karras-10: time +0.0% (-2.2% to +2.3%), PSNR +0.00 dB",
        "ddim-karras-20: time +0.0% (-2.2% to +2.3%), PSNR +0.00 dB",
        "none of 2 cells got slower or worse",
    ]


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"seconds": 1.2}, "time +20.0% (+17.3% to +22.8%), PSNR +0.00 dB  <- slower"),
        ({"psnr": 29.0}, "time +0.0% (-2.2% to +2.3%), PSNR -1.00 dB  <- worse"),
        (
            {"psnr": 29.0, "seconds": 1.2},
            "time +20.0% (+17.3% to +22.8%), PSNR -1.00 dB  <- slower, worse",
        ),
        (
            {"psnr": None, "seconds": None, "status": "failed", "reason": "NaN"},
            "nothing to compare  <- fails now: NaN",
        ),
    ],
)
def test_what_got_slower_or_worse_fails(changes, mark):
    new = changed(**changes)
    assert compare(OLD, new, Limits()).failed
    assert f"ddim-karras-10: {mark}" in lines(new)
    assert lines(new)[-1] == "1 of 2 cells got slower or worse"


@pytest.mark.parametrize(
    "changes", [{"seconds": 1.09}, {"psnr": 29.6}, {"psnr": 40, "seconds": 0.1}]
)
def test_what_stays_within_the_limits_passes(changes):
    assert not compare(OLD, changed(**changes), Limits()).failed


def test_what_lies_within_the_spread_of_either_side_passes():
    def scattered(scatter, seconds=1.0):
        return results([replace(cell(steps=10), seconds=timing(seconds, scatter))])

    calm, wild = scattered(0.01), scattered(0.3)
    assert compare(calm, scattered(0.01, 1.2), Limits()).failed
    assert not compare(calm, scattered(0.3, 1.2), Limits()).failed
    assert not compare(wild, scattered(0.01, 1.2), Limits()).failed
    assert compare(wild, scattered(0.3, 9.0), Limits()).failed


def test_distances_are_compared_picture_by_picture():
    def drew(*values):
        return results([replace(cell(steps=10), psnr=statistic(values))])

    old = drew(25.0, 30.0, 38.0)
    assert compare(old, drew(24.1, 29.0, 37.0), Limits()).failed  # each is worse
    chance = compare(old, drew(31.0, 20.0, 39.0), Limits())  # -1 dB in the mean as well
    assert not chance.failed
    assert chance.changes[0].psnr.mean == pytest.approx(-1.0)


def test_single_timings_and_pictures_are_held_against_the_allowance_alone():
    def single(seconds, psnr):
        one = replace(cell(steps=10), seconds=Timing(seconds, seconds, seconds, (seconds,)))
        return results([replace(one, psnr=statistic([psnr]))])

    assert not compare(single(1.0, 30.0), single(1.09, 29.6), Limits()).failed
    made = compare(single(1.0, 30.0), single(1.2, 29.0), Limits())
    assert made.lines()[0] == "ddim-karras-10: time +20.0%, PSNR -1.00 dB  <- slower, worse"


def test_limits_can_be_set():
    limits = Limits.parse("25%", "1.5dB")
    assert limits == Limits(0.25, 1.5)
    assert not compare(OLD, changed(psnr=29.0, seconds=1.2), limits).failed
    assert Limits.parse("25", " 1.5 ") == limits
    assert Limits.parse(".5%", "2 dB") == Limits(0.005, 2.0)


@pytest.mark.parametrize(
    ("slower", "worse"), [("x", "1"), ("-5%", "1"), ("5dB", "1"), ("5", "1%"), ("5", "")]
)
def test_bad_limits_are_refused(slower, worse):
    with pytest.raises(UsageError, match="--max-"):
        Limits.parse(slower, worse)


@pytest.mark.parametrize("field", ["device", "dtype", "threads"])
def test_times_of_unlike_machines_are_not_compared(field):
    value = 8 if field == "threads" else "other"
    new = replace(changed(seconds=9.0), machine=replace(MACHINE, **{field: value}))
    assert not compare(OLD, new, Limits()).failed
    assert lines(new)[0] == "ddim-karras-10: PSNR +0.00 dB"
    assert f"note: times are not compared: {field} was" in lines(new)[2]


def test_differences_above_the_floor_mean_nothing():
    old, new = changed(psnr=70.0), changed(psnr=62.0)
    assert not compare(old, new, Limits()).failed
    low = replace(new, references={"": replace(REFERENCE, floor_psnr=80.0)})
    assert not compare(old, low, Limits()).failed
    sure = replace(old, references={"": replace(REFERENCE, floor_psnr=80.0)})
    assert compare(sure, low, Limits()).failed


def test_cells_that_are_gone_are_told():
    new = results([cell(steps=10)])
    assert "note: not measured this time: ddim-karras-20" in lines(new)
    assert not compare(new, OLD, Limits()).failed


def test_another_model_is_told():
    assert "note: the model was storybook, now mine" in lines(replace(OLD, model="mine"))


@pytest.mark.parametrize("name", ["prompts", "negative", "seeds", "guidance", "width", "height"])
def test_other_pictures_are_refused(name):
    new = replace(OLD, settings={**OLD.settings, name: 7})
    with pytest.raises(UsageError, match=f"drew other pictures: {name} was"):
        compare(OLD, new, Limits())


def test_no_common_cell_is_refused():
    with pytest.raises(UsageError, match="no cell in common"):
        compare(OLD, results([cell(steps=30)]), Limits())


@pytest.mark.parametrize(
    ("name", "value"),
    [("guidance_rescale", 0.7), ("guidance_method", "apg"), ("pag", 3.0), ("eta", 1.0)],
)
def test_other_guidance_is_another_picture(name, value):
    new = replace(OLD, settings={**OLD.settings, name: value})
    with pytest.raises(UsageError, match=f"drew other pictures: {name} was"):
        compare(OLD, new, Limits())


def test_cells_are_compared_at_the_same_point_of_the_axes():
    def swept(*scales, psnr=30.0):
        cells = [cell(at={"guidance": scale}, psnr=psnr + scale) for scale in scales]
        made = results(cells, settings={**OLD.settings, "guidance": list(scales)})
        keys = [f"guidance_{scale:g}" for scale in scales]
        return replace(made, references=dict.fromkeys(keys, REFERENCE))

    assert lines(swept(3.0, 7.0, psnr=28.0), old=swept(3.0, 5.0)) == [
        "ddim-karras-10-guidance_3: time +0.0% (-2.2% to +2.3%), PSNR -2.00 dB  <- worse",
        "note: not measured this time: ddim-karras-10-guidance_5",
        "1 of 1 cells got slower or worse",
    ]
    with pytest.raises(UsageError, match="now several"):
        compare(OLD, swept(3.0, 4.0), Limits())
