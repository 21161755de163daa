from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_examples import REFERENCE, cell, timing

from diffgen.bench.answer import (
    Question,
    describe,
    pareto_front,
    pick_baseline,
    recommend,
)
from diffgen.bench.knees import find_knees
from diffgen.bench.results import Timing
from diffgen.bench.uncertainty import statistic

REFERENCES = {"": REFERENCE}
FAST = cell("unipc", 8, psnr=28.0, seconds=0.4)
GOOD = cell("dpmpp_2m", 14, psnr=31.0, seconds=0.7)
SLOW = cell("ddim", 50, psnr=35.0, seconds=2.5)
BAD = cell("lms", 12, psnr=20.0, seconds=0.6)
CELLS = [SLOW, BAD, GOOD, FAST]


def answer(cells=CELLS, references=REFERENCES, **question):
    return recommend(cells, references, Question(**question))


def test_the_front_holds_what_nothing_beats():
    assert pareto_front(CELLS, REFERENCES) == [FAST.key, GOOD.key, SLOW.key]


@pytest.mark.parametrize(("seconds", "beaten"), [(0.4, True), (0.43, True), (0.45, False)])
def test_of_times_that_hardly_differ_the_closer_is_on_the_front(seconds, beaten):
    other = cell("heun", 4, psnr=29.0, seconds=seconds)
    assert pareto_front([FAST, other], REFERENCES) == [FAST.key] * (not beaten) + [other.key]


def test_of_equal_pictures_the_faster_is_on_the_front():
    other = cell("heun", 4, psnr=28.0, seconds=0.399)
    assert pareto_front([FAST, other], REFERENCES) == [other.key]
    assert pareto_front([FAST, replace(FAST, steps=9)], REFERENCES) == [FAST.key, "unipc-karras-9"]


def test_cells_without_a_distance_are_no_candidates():
    lcm = cell("lcm", 4, psnr=None, seconds=0.1, status="no_limit", stochastic=True)
    broken = cell("plms", 4, psnr=None, seconds=None, status="failed", reason="NaN")
    assert pareto_front([lcm, broken, GOOD], REFERENCES) == [GOOD.key]
    assert answer([lcm, broken, GOOD]).cell == GOOD.key
    assert answer([lcm, broken]) is None
    assert find_knees([lcm, broken]) == {}


def test_the_cheapest_that_is_good_enough_is_recommended():
    made = answer(baseline=SLOW.key)
    assert made.cell == GOOD.key
    assert made.sentence == (
        "dpmpp_2m + karras, 14 steps: PSNR 31.0 +- 12.7 dB to the converged picture (30 is enough)"
        ", 0.7 s a picture, 28% of the time of your ddim + karras, 50 steps (35.0 +- 12.7 dB)"
    )


def test_an_interval_is_told_however_wide():
    sure = replace(GOOD, psnr=statistic([30.8, 31.0, 31.2]))
    assert "PSNR 31.0 +- 0.5 dB" in answer([sure]).sentence
    single = replace(GOOD, psnr=statistic([31.0]))
    assert "PSNR 31.0 dB" in answer([single]).sentence
    wide = replace(GOOD, psnr=statistic([26.0, 31.0, 36.0]))
    assert "PSNR 31.0 +- 12.4 dB" in answer([wide]).sentence


def test_times_that_hardly_differ_do_not_decide():
    near = cell("heun", 6, psnr=33.0, seconds=0.72)
    assert answer([*CELLS, near]).cell == near.key
    assert answer([*CELLS, replace(near, seconds=SLOW.seconds)]).cell == GOOD.key


def test_a_target_can_be_set():
    assert answer(target_psnr=25.0).cell == FAST.key
    made = answer(target_psnr=50.0)
    assert made.cell == SLOW.key
    assert "nothing measured reaches 50; more --steps may)" in made.sentence


def test_a_budget_bounds_the_time():
    made = answer(budget_seconds=0.5)
    assert made.cell == FAST.key
    assert "nothing measured reaches 30 within 0.5 s" in made.sentence
    tight = answer(budget_seconds=0.1)
    assert tight.cell == FAST.key
    assert tight.sentence == (
        "nothing measured stays within 0.1 s; the fastest is unipc + karras, 8 steps at 0.4 s"
    )


def test_distances_above_the_floor_count_no_more_than_the_floor():
    references = {"": replace(REFERENCE, floor_psnr=27.0)}
    assert pareto_front([FAST, GOOD], references) == [FAST.key]
    made = answer([FAST, GOOD], references)
    assert made.cell == FAST.key
    assert "PSNR 28.0 +-" in made.sentence  # what was measured, as the table has it
    assert "30 cannot be told: the reference is sure to 27.0 dB only" in made.sentence


def test_a_stochastic_sampler_is_held_against_its_own_floor():
    noisy = cell("euler_a", 8, psnr=40.0, seconds=0.1, stochastic=True)
    references = REFERENCES | {"euler_a": replace(REFERENCE, floor_psnr=25.0)}
    assert answer([noisy, GOOD], references).cell == GOOD.key
    assert answer([noisy, GOOD]).cell == GOOD.key  # without a reference there is no distance


def drew(steps, values, *, seconds=0.5, sampler="dpmpp_2m"):
    """A cell with the PSNR of each picture."""
    return replace(cell(sampler, steps, seconds=seconds), psnr=statistic(values))


YOURS = drew(10, [27.7, 31.4, 37.2])  # 32.1 +- 11.9


def test_a_better_mean_that_chance_makes_is_no_reason_to_change():
    rival = drew(10, [31.8, 33.1, 34.1], seconds=0.505, sampler="unipc")  # 33.0 +- 2.9
    made = answer([YOURS, rival], baseline=YOURS.key)
    assert made.cell == YOURS.key
    assert made.sentence == (
        "keep your dpmpp_2m + karras, 10 steps: PSNR 32.1 +- 11.9 dB to the converged picture (30 "
        "is enough), 0.5 s a picture; unipc + karras, 10 steps is closer by 0.9 +- 9.1 dB at 101% "
        f"of the time, which about {made.more_seeds} more seeds would tell from chance"
    )
    assert made.more_seeds == 64
    # Each further prompt brings as many pictures again.
    assert answer([YOURS, rival], baseline=YOURS.key, prompts=4).more_seeds == 16


def test_a_gain_of_every_picture_is_a_reason_to_change():
    rival = drew(10, [28.6, 32.4, 38.0], seconds=0.505, sampler="unipc")
    made = answer([YOURS, rival], baseline=YOURS.key)
    assert made.cell == rival.key
    assert "101% of the time of your dpmpp_2m" in made.sentence


def test_the_more_rivals_the_surer_a_gain_has_to_be():
    rival = drew(10, [28.4, 32.2, 38.2], seconds=0.505, sampler="unipc")  # +0.83 +- 0.38
    others = [drew(steps, [20.0, 22.0, 21.0], seconds=3.0) for steps in range(20, 60)]
    assert answer([YOURS, rival], baseline=YOURS.key).cell == rival.key
    assert answer([YOURS, rival, *others], baseline=YOURS.key).cell == YOURS.key


@pytest.mark.parametrize(("scatter", "changes"), [(0.02, True), (0.5, False)])
def test_a_time_that_scatters_is_no_reason_to_change(scatter, changes):
    rival = replace(drew(7, [30.0, 30.5, 30.2]), seconds=timing(0.35, scatter))
    made = answer([YOURS, rival], baseline=YOURS.key)
    assert (made.cell == rival.key) is changes
    assert ("the scatter of the timings does not show" in made.sentence) is not changes


def test_one_timing_shows_no_gain():
    rival = replace(drew(7, [30.0, 30.5, 30.2]), seconds=Timing(0.35, 0.35, 0.35, (0.35,)))
    made = answer([YOURS, rival], baseline=YOURS.key)
    assert made.cell == YOURS.key
    assert "70% of the time, which one timing does not show (--repeats takes more)" in made.sentence


def test_a_faster_picture_that_is_not_close_enough_is_no_gain():
    rival = drew(5, [20.0, 21.0, 22.0], seconds=0.2)
    short = drew(10, [25.0, 26.0, 27.0])
    made = answer([short, rival], baseline=short.key)
    assert made.cell == short.key
    assert "nothing measured reaches 30" in made.sentence


def test_one_that_reaches_the_target_by_chance_is_told():
    short = drew(10, [25.0, 29.9, 34.0])
    rival = drew(20, [36.0, 30.0, 29.0], seconds=1.0)
    made = answer([short, rival], baseline=short.key)
    assert made.cell == short.key
    assert "(short of 30)" in made.sentence
    assert "dpmpp_2m + karras, 20 steps is closer by" in made.sentence


@given(st.lists(st.tuples(st.floats(10, 50), st.floats(10, 50)), min_size=2, max_size=8))
def test_of_two_that_cost_the_same_only_one_can_be_shown_to_be_closer(values):
    mine, other = (drew(n, list(side)) for n, side in enumerate(zip(*values, strict=True), 10))
    swapped = [answer([mine, other], baseline=one.key).cell for one in (mine, other)]
    kept = [chosen == one.key for chosen, one in zip(swapped, (mine, other), strict=True)]
    assert any(kept)


def test_other_steps_than_the_default_are_not_called_yours():
    few = drew(5, [20.0, 21.0, 22.0])
    kept = answer([few], baseline=few.key, default=False)
    assert kept.sentence.startswith("keep dpmpp_2m + karras, 5 steps: ")
    better = drew(20, [31.0, 31.5, 32.0], seconds=0.6)
    made = answer([few, better], baseline=few.key, default=False)
    assert "of the time of dpmpp_2m + karras, 5 steps (21.0" in made.sentence


def test_your_own_default_is_not_compared_with_itself():
    made = answer([GOOD], baseline=GOOD.key)
    assert made.sentence.startswith("keep your dpmpp_2m + karras, 14 steps: PSNR 31.0")
    assert made.sentence.endswith("0.7 s a picture")


def test_the_baseline_is_the_default_or_the_longest_of_it():
    cells = [cell(steps=5), cell(steps=20), cell(steps=50), cell("heun", 80)]
    assert pick_baseline(cells, "ddim", "karras", 20) == "ddim-karras-20"
    assert pick_baseline(cells, "ddim", "karras", 30) == "ddim-karras-50"
    assert pick_baseline(cells, "euler", "karras", 20) == ""


def test_the_knee_is_where_the_curve_bends():
    # SSIM against steps: straight up to 10, then almost flat.
    curve = {4: 0.5, 6: 0.65, 8: 0.8, 10: 0.95, 20: 0.96, 50: 0.97}
    cells = [cell(steps=steps, ssim=value) for steps, value in curve.items()]
    assert find_knees(cells) == {"ddim-karras": 10}


@pytest.mark.parametrize("values", [(0.5, 0.9), (0.9, 0.8, 0.7), (0.9, 0.9, 0.9)])
def test_no_knee_without_a_rising_curve_of_three(values):
    cells = [cell(steps=4 + i, ssim=value) for i, value in enumerate(values)]
    assert find_knees(cells) == {}


def test_one_step_is_singular():
    assert describe(cell(steps=1)) == "ddim + karras, 1 step"


def test_yours_has_the_default_of_what_does_not_change_the_solution():
    cells = [cell(at={"guidance": 3.0, "eta": eta}) for eta in (1.0, 0.0)]
    own = ("ddim", "karras", 10)
    assert pick_baseline(cells, *own, {"eta": 0.0}) == "ddim-karras-10-guidance_3-eta_0"
    assert pick_baseline(cells[:1], *own, {"eta": 0.0}) == ""


def test_a_description_leaves_out_what_all_of_a_solution_share():
    made = cell(at={"guidance": 3.0, "method": "apg", "eta": 0.5})
    assert describe(made) == "ddim + karras, 10 steps, eta 0.5"
