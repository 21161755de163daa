"""Means with their 95 % confidence interval. Importing this module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate

from diffgen.bench.results import Statistic


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and half the width of its 95 % confidence interval, by Student's t.

    A single value has no known uncertainty; its interval is given as 0.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Statistic(mean, 0.0, tuple(values))
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    ci95 = t_quantile(count - 1) * math.sqrt(variance / count)
    return Statistic(mean, ci95, tuple(values))


@cache
def t_quantile(degrees: int) -> float:
    """The t with P(|T| < t) = 0.95 for Student's T of that many degrees of freedom.

    With T = sqrt(degrees) tan(theta) the density of theta is cos(theta)^(degrees - 1), which is
    smooth on a finite interval; the midpoint rule sums it up.
    """
    cells = 20_000
    width = math.pi / 2 / cells
    mass = list(accumulate(math.cos((i + 0.5) * width) ** (degrees - 1) for i in range(cells)))
    target = 0.95 * mass[-1]
    last = next(i for i, total in enumerate(mass) if total >= target)
    before = mass[last - 1] if last else 0.0
    theta = (last + (target - before) / (mass[last] - before)) * width
    return math.sqrt(degrees) * math.tan(theta)
