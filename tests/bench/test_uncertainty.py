import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sweep_examples import timing

from diffgen.bench.results import Timing
from diffgen.bench.uncertainty import log_ratio, paired, statistic, t_quantile, values_needed

decibels = st.floats(5.0, 60.0)
pairs = st.lists(st.tuples(decibels, decibels), min_size=2, max_size=12)


@pytest.mark.parametrize("outside", [0.05, 0.05 / 39, 1e-4])
@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 11, 40, 300, 9999])
def test_t_quantile_is_student_s(degrees, outside):
    expected = stats.t.ppf(1 - outside / 2, degrees)
    assert t_quantile(degrees, outside) == pytest.approx(expected, rel=2e-6)


def test_mean_and_interval():
    values = [1.0, 2.0, 4.0]
    made = statistic(values)
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem(values))
    assert made.mean == pytest.approx(7 / 3)
    assert (made.mean - made.ci95, made.mean + made.ci95) == pytest.approx((low, high), rel=1e-5)
    assert made.values == (1.0, 2.0, 4.0)


def test_one_value_has_no_interval():
    assert statistic([3.0]).ci95 == 0.0
    assert paired([3.0], [1.0]).half == math.inf
    assert not paired([3.0], [1.0]).rises


def test_what_pictures_have_in_common_drops_out():
    """33.0 +- 3.1 against 32.1 +- 3.1 tells nothing, unless each picture gained the same."""
    rival, yours = [31.7, 33.1, 34.2], [30.8, 32.2, 33.3]
    assert statistic(rival).mean - statistic(rival).ci95 < statistic(yours).mean
    assert paired(rival, yours).rises
    assert paired(rival, yours).mean == pytest.approx(0.9)
    scattered = paired([31.8, 33.1, 34.1], [27.7, 31.4, 37.2])
    assert scattered.mean == pytest.approx(0.9)
    assert scattered.half == pytest.approx(9.1, abs=0.05)
    assert not scattered.rises


@given(pairs)
def test_swapping_the_two_turns_the_difference_round(values):
    a, b = zip(*values, strict=True)
    there, back = paired(a, b), paired(b, a)
    assert there.mean == pytest.approx(-back.mean, abs=1e-9)
    assert there.half == pytest.approx(back.half, abs=1e-9)
    assert (there.rises, there.falls) == (back.falls, back.rises)


@given(pairs, st.integers(2, 4))
def test_more_seeds_of_the_same_kind_narrow_the_interval(values, times):
    a, b = zip(*values, strict=True)
    few, many = paired(a, b), paired(a * times, b * times)
    assert many.mean == pytest.approx(few.mean, abs=1e-9)
    assert many.half <= few.half + 1e-9
    assert many.rises >= few.rises


@given(pairs)
def test_paired_is_scipy_s_paired_t_test(values):
    a, b = zip(*values, strict=True)
    if len({round(x - y, 6) for x, y in values}) < 2:
        return
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    made = paired(a, b)
    assert made.mean - made.half == pytest.approx(interval.low, rel=1e-4, abs=1e-5)


def test_the_values_needed_are_the_fewest_that_tell():
    differences = [3.3, 0.9, -1.5]
    spread = stats.tstd(differences)

    def half(count):
        return stats.t.ppf(0.975, count - 1) * spread / math.sqrt(count)

    needed = values_needed(differences)
    assert half(needed) < 0.9 <= half(needed - 1)
    assert values_needed([1.0, 1.0, 1.0]) == 3  # they tell already
    assert values_needed([1.0]) is None
    assert values_needed([1.0, -1.0]) is None


def test_times_are_compared_as_welch_does():
    a, b = (1.2, 1.3, 1.25, 1.24), (1.0, 1.1, 1.04)
    made = log_ratio(Timing(1.245, 1.2, 1.3, a), Timing(1.04, 1.0, 1.1, b))
    result = stats.ttest_ind(*([math.log(t) for t in side] for side in (a, b)), equal_var=False)
    width = result.confidence_interval(0.95)
    assert made.mean == pytest.approx(math.log(1.245 / 1.04))
    # Whole degrees of freedom, rounded down, are a little wider.
    assert (width.high - width.low) / 2 <= made.half < 1.2 * (width.high - width.low) / 2
    assert made.rises


def test_a_hiccup_widens_the_interval_of_a_time():
    calm, upset = timing(0.5), Timing(0.5, 0.5, 2.0, (0.5, 0.5, 2.0))
    assert log_ratio(calm, timing(1.0)).falls
    assert not log_ratio(upset, timing(1.0)).falls
    assert log_ratio(Timing(0.5, 0.5, 0.5, (0.5,)), timing(1.0)).half == math.inf
