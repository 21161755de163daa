"""The two noise sources: draws that diffusers would make, and one Brownian path per image.

Statistical tests draw once from fixed seeds, so they cannot flicker; their tolerances are four
standard errors of the estimate.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffgen.diffusion.noise import BrownianNoise, BrownianPath, StreamNoise, generator_for, slerp

CPU = torch.device("cpu")
SHAPE = (4, 8, 8)
MANY = (1, 4, 128, 128)  # 65536 samples: a variance is known to sqrt(2 / 65536) = 0.6 %
VARIANCE_TOLERANCE = 4 * math.sqrt(2 / 65536)
CORRELATION_TOLERANCE = 4 * math.sqrt(1 / 65536)
# Within an octave, over one border, over many, and at both ends of what a run may ask for:
# zero-SNR models start at tau = 1 / 4096^2.
SPANS = [(1.1, 1.9), (0.9, 1.1), (0.005, 1000.0), (2.0**-24, 3e-7), (1.2e3, 7.7e6), (1.0, 2.0)]


def variance(sample: Tensor) -> float:
    return float(sample.double().square().mean())


def correlation(a: Tensor, b: Tensor) -> float:
    return float((a * b).double().mean()) / math.sqrt(variance(a) * variance(b))


@pytest.mark.parity
@pytest.mark.parametrize("seeds", [(0,), (3, 1, 2**40), (5, 5)])
def test_stream_draws_what_diffusers_draws(seeds: Sequence[int]) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    stream = StreamNoise(seeds, SHAPE, CPU)
    for _ in range(3):
        expected = randn_tensor((len(seeds), *SHAPE), generator=generators)
        assert torch.equal(stream.draw(), expected)


def test_stream_ignores_the_noise_levels() -> None:
    stream, again = (StreamNoise((1,), SHAPE, CPU) for _ in range(2))
    assert torch.equal(stream(14.6, 7.0), again.draw())
    assert torch.equal(stream(7.0, 0.1), again.draw())


@pytest.mark.parametrize("source", [StreamNoise, BrownianNoise])
def test_an_image_does_not_see_its_neighbours(source: type) -> None:
    levels = [14.6, 7.0, 3.3, 0.4, 0.03]
    together = source((3, 1, 4), SHAPE, CPU)
    alone = source((1,), SHAPE, CPU)
    other = source((4, 1), SHAPE, CPU)
    for sigma, sigma_next in pairwise(levels):
        batch = together(sigma, sigma_next)
        assert batch.shape == (3, *SHAPE)
        assert batch.dtype == torch.float32
        assert torch.equal(batch[1:2], alone(sigma, sigma_next))
        assert torch.equal(batch[1:2], other(sigma, sigma_next)[1:])


def test_generators_are_torchs_own() -> None:
    expected = torch.randn(5, generator=torch.Generator().manual_seed(9))
    assert torch.equal(torch.randn(5, generator=generator_for(9)), expected)


def test_a_path_does_not_depend_on_what_was_asked_before() -> None:
    forward = [BrownianPath(1, SHAPE)(start, end) for start, end in SPANS]
    path = BrownianPath(1, SHAPE)
    backward = [path(start, end) for start, end in reversed(SPANS)]
    for expected, actual in zip(forward, reversed(backward), strict=True):
        assert torch.equal(actual, expected)


def test_paths_of_different_seeds_differ() -> None:
    a, b = (BrownianPath(seed, MANY)(0.3, 5.0) for seed in (1, 2))
    assert abs(correlation(a, b)) < CORRELATION_TOLERANCE


def test_a_path_is_not_the_noise_the_image_started_from() -> None:
    """Both come from the same seed, but one must not be a copy of the other."""
    start = StreamNoise((1,), MANY[1:], CPU).draw()
    for sigma, sigma_next in ((14.6, 9.0), (1.0, 0.5)):
        increment = BrownianNoise((1,), MANY[1:], CPU)(sigma, sigma_next)
        assert abs(correlation(start, increment)) < CORRELATION_TOLERANCE


@pytest.mark.parametrize(("start", "end"), SPANS)
@pytest.mark.parametrize("fraction", [0.001, 0.37, 0.999])
def test_increments_add_up(start: float, end: float, fraction: float) -> None:
    """W(c) - W(a) = (W(b) - W(a)) + (W(c) - W(b)): float32 sums, of the order of sqrt(tau)."""
    path = BrownianPath(1, SHAPE)
    middle = start + fraction * (end - start)
    whole, parts = path(start, end), path(start, middle) + path(middle, end)
    torch.testing.assert_close(parts, whole, rtol=0.0, atol=3e-6 * math.sqrt(end))


@pytest.mark.parametrize(("start", "end"), SPANS)
def test_backwards_is_the_negative(start: float, end: float) -> None:
    path = BrownianPath(1, SHAPE)
    tolerance = 3e-6 * math.sqrt(end)
    torch.testing.assert_close(path(end, start), -path(start, end), rtol=0.0, atol=tolerance)


@pytest.mark.parametrize(("start", "end"), [*SPANS, (1.5, 1.5005), (1.0, 1.002), (0.999, 1.001)])
def test_variance_is_the_length_of_the_interval(start: float, end: float) -> None:
    """Down to 1/2000 of an octave, finer than a run of 1000 steps."""
    increment = BrownianPath(1, MANY)(start, end)
    assert variance(increment) == pytest.approx(end - start, rel=VARIANCE_TOLERANCE)
    assert abs(float(increment.mean())) < 4 * math.sqrt((end - start) / 65536)


@pytest.mark.parametrize(
    "levels",
    [
        (1.0, 1.25, 1.5, 1.75, 2.0),  # the tree's own points
        (0.013, 0.4, 0.7, 1.1, 3.0, 40.0),  # across borders of octaves
        (1.1, 1.13, 1.2, 1.201, 1.6),
    ],
)
def test_disjoint_increments_are_uncorrelated(levels: tuple[float, ...]) -> None:
    path = BrownianPath(1, MANY)
    increments = [path(start, end) for start, end in pairwise(levels)]
    for i, first in enumerate(increments):
        for second in increments[i + 1 :]:
            assert abs(correlation(first, second)) < CORRELATION_TOLERANCE


@pytest.mark.parametrize("sigma", [4096.0, 14.6, 1.0, 0.5, 0.03])
def test_brownian_noise_has_unit_variance(sigma: float) -> None:
    noise = BrownianNoise((1,), MANY[1:], CPU)
    for factor in (0.999, 0.9, 0.5, 0.1):
        draw = noise(sigma, factor * sigma)
        assert variance(draw) == pytest.approx(1.0, rel=VARIANCE_TOLERANCE)


def test_a_split_step_adds_the_same_ancestral_noise() -> None:
    """DDIM with eta = 1 multiplies x by (t / s)^2 from s to t and adds the variance
    t^2 (s^2 - t^2) / s^2; done in two steps, the noise must come out the same, to rounding.
    """

    def added(sigma: float, sigma_next: float) -> Tensor:
        up = sigma_next * math.sqrt(1.0 - (sigma_next / sigma) ** 2)
        return up * noise(sigma, sigma_next)

    noise = BrownianNoise((1, 2), SHAPE, CPU)
    high, middle, low = 9.0, 2.3, 0.7
    in_two_steps = (low / middle) ** 2 * added(high, middle) + added(middle, low)
    torch.testing.assert_close(in_two_steps, added(high, low), rtol=0.0, atol=1e-6)


def test_noise_is_asked_for_upwards_too() -> None:
    """Churn and restarts go up in sigma: unit variance there as well."""
    draw = BrownianNoise((1,), MANY[1:], CPU)(0.5, 2.0)
    assert variance(draw) == pytest.approx(1.0, rel=VARIANCE_TOLERANCE)


def test_a_mixture_of_noise_keeps_its_variance() -> None:
    first, second = torch.randn(2, 3, 4, 64, 64)
    for share in (0.1, 0.5, 0.9):
        mixed = slerp(first, second, share)
        torch.testing.assert_close(mixed.std((1, 2, 3)), torch.ones(3), atol=0.02, rtol=0.0)


def test_a_mixture_treats_each_image_by_itself() -> None:
    first, second = torch.randn(2, 3, 4, 8, 8)
    alone = [slerp(a[None], b[None], 0.3) for a, b in zip(first, second, strict=True)]
    assert torch.equal(slerp(first, second, 0.3), torch.cat(alone))


def test_a_mixture_of_a_draw_with_itself_is_the_draw() -> None:
    noise = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(slerp(noise, noise, 0.4), noise)
