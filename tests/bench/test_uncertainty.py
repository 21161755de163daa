import pytest
from scipy import stats

from diffgen.bench.uncertainty import statistic, t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 11, 40, 300])
def test_t_quantile_is_student_s(degrees):
    # The midpoint rule is of second order; for many degrees all the mass lies in few cells.
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-6)


def test_mean_and_interval():
    values = [1.0, 2.0, 4.0]
    made = statistic(values)
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem(values))
    assert made.mean == pytest.approx(7 / 3)
    assert (made.mean - made.ci95, made.mean + made.ci95) == pytest.approx((low, high), rel=1e-5)
    assert made.values == (1.0, 2.0, 4.0)


def test_one_value_has_no_interval():
    assert statistic([3.0]).ci95 == 0.0
