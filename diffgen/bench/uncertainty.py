"""Means and differences with their confidence intervals, by Student's t.

    one sample    mean +- t(n - 1) s / sqrt(n)
    paired        the same of the differences a_i - b_i; what pictures have in common drops out
    two samples   difference +- t(v) sqrt(s_a^2 / n_a + s_b^2 / n_b), v after Welch (1947)

`s` is the standard deviation with n - 1 in its denominator. A single value has no known spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from diffgen.bench.results import Statistic, Timing

OUTSIDE = 0.05  # the probability that an interval misses the true value
MOST = 10_000  # largest sensible number of values


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference with half the width of its interval, infinite if the spread is unknown."""

    mean: float
    half: float

    @property
    def rises(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.mean - self.half > 0.0

    @property
    def falls(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.mean + self.half < 0.0


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and half the width of its 95 % confidence interval; 0 for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Statistic(mean, 0.0, tuple(values))
    return Statistic(mean, _half(values, OUTSIDE), tuple(values))


def paired(a: Sequence[float], b: Sequence[float], outside: float = OUTSIDE) -> Difference:
    """a - b, value by value; surplus values of the longer one are dropped."""
    differences = [x - y for x, y in zip(a, b, strict=False)]
    return Difference(math.fsum(differences) / len(differences), _half(differences, outside))


def log_ratio(a: Timing, b: Timing, outside: float = OUTSIDE) -> Difference:
    """log(a / b) of two timings by their medians, with Welch's interval for their logarithms.

    Medians are robust against a single outlier, which only widens the interval.
    """
    mean = math.log(a.median / b.median)
    x, y = [math.log(value) for value in a.repeats], [math.log(value) for value in b.repeats]
    if min(len(x), len(y)) < 2:
        return Difference(mean, math.inf)
    parts = [_variance(values) / len(values) for values in (x, y)]
    total = sum(parts)
    if total == 0.0:
        return Difference(mean, 0.0)
    # v = total^2 / sum(part^2 / (n - 1)), rounded down, for the wider interval
    degrees = total**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (x, y), strict=True))
    return Difference(mean, t_quantile(math.floor(degrees + 1e-9), outside) * math.sqrt(total))


def values_needed(differences: Sequence[float], outside: float = OUTSIDE) -> int | None:
    """The least n whose interval would exclude 0, with the same mean and spread.

    t(n - 1) s / sqrt(n) < |mean|. None if the spread is unknown, or for more than `MOST`.
    """
    if len(differences) < 2:
        return None
    mean = abs(math.fsum(differences)) / len(differences)
    deviation = math.sqrt(_variance(differences))
    low, high = len(differences), MOST

    def tells(count: int) -> bool:
        return t_quantile(count - 1, outside) * deviation / math.sqrt(count) < mean

    if not tells(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle + 1, high)
    return low


@cache
def t_quantile(degrees: int, outside: float = OUTSIDE) -> float:
    """The t with P(|T| > t) = `outside` for Student's T with that many degrees of freedom.

    With T = sqrt(degrees) tan(theta) the density of theta is cos(theta)^(degrees - 1), smooth on a
    finite interval, and integrated by the midpoint rule.
    """
    cells = 20_000
    # Beyond this angle the density of many degrees underflows.
    width = min(math.pi / 2, 12.0 / math.sqrt(degrees)) / cells
    mass = list(accumulate(math.cos((i + 0.5) * width) ** (degrees - 1) for i in range(cells)))
    target = (1.0 - outside) * mass[-1]
    last = next(i for i, total in enumerate(mass) if total >= target)
    before = mass[last - 1] if last else 0.0
    theta = (last + (target - before) / (mass[last] - before)) * width
    return math.sqrt(degrees) * math.tan(theta)


def _half(values: Sequence[float], outside: float) -> float:
    if len(values) < 2:
        return math.inf
    return t_quantile(len(values) - 1, outside) * math.sqrt(_variance(values) / len(values))


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
