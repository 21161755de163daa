"""Noise schedules against diffusers' tables and against the papers' formulas in numpy."""

import math
from itertools import pairwise

import diffusers
import numpy as np
import pytest

from diffgen.diffusion.schedule import MIN_ALPHA_BAR, NoiseSchedule, linspace
from diffgen.types import NoiseConfig

CONFIGS = {
    "stable-diffusion": NoiseConfig(),
    "ddpm": NoiseConfig(beta_schedule="linear", beta_start=1e-4, beta_end=0.02),
    "cosine": NoiseConfig(beta_schedule="squaredcos_cap_v2"),
    "zero-snr": NoiseConfig(zero_snr=True),
    "zero-snr-cosine": NoiseConfig(beta_schedule="squaredcos_cap_v2", zero_snr=True),
    "short": NoiseConfig(num_train_timesteps=50),
    "long": NoiseConfig(beta_schedule="squaredcos_cap_v2", num_train_timesteps=4000),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> NoiseConfig:
    return CONFIGS[request.param]


@pytest.fixture
def schedule(config: NoiseConfig) -> NoiseSchedule:
    return NoiseSchedule.from_config(config)


def reference_table(config: NoiseConfig) -> np.ndarray:
    """alpha_bar straight from the papers, in numpy's float64."""
    steps = config.num_train_timesteps
    if config.beta_schedule == "squaredcos_cap_v2":  # arXiv:2102.09672, equation 17
        f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    elif config.beta_schedule == "scaled_linear":
        betas = np.linspace(config.beta_start**0.5, config.beta_end**0.5, steps) ** 2
    else:
        betas = np.linspace(config.beta_start, config.beta_end, steps)
    alphas_cumprod = np.cumprod(1 - betas)
    if config.zero_snr:  # arXiv:2305.08891, algorithm 1
        roots = np.sqrt(alphas_cumprod)
        alphas_cumprod = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return alphas_cumprod


def test_table_follows_the_papers(config: NoiseConfig, schedule: NoiseSchedule) -> None:
    """Same formulas in the same precision: only the order of roundings differs."""
    expected = reference_table(config)
    if config.zero_snr:
        assert expected[-1] == 0.0
        assert schedule.alphas_cumprod[-1] == MIN_ALPHA_BAR
        expected[-1] = MIN_ALPHA_BAR
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=1e-11)


@pytest.mark.parity
def test_table_is_diffusers(config: NoiseConfig, schedule: NoiseSchedule) -> None:
    """diffusers multiplies thousands of float32 factors, each rounded by up to 6e-8 in a random
    direction: 1e-6 measured, 1.3e-5 where beta meets its cap of 0.999, 4e-5 next to the end of
    the zero-SNR table, where almost equal roots are subtracted.
    """
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        rescale_betas_zero_snr=config.zero_snr,
    )
    expected = scheduler.alphas_cumprod.double().numpy()
    floor = MIN_ALPHA_BAR if config.zero_snr else 0.0
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=5e-5, atol=floor)


def test_sigma_is_the_noise_to_signal_ratio(schedule: NoiseSchedule) -> None:
    alphas_cumprod = np.array(schedule.alphas_cumprod)
    np.testing.assert_allclose(
        schedule.sigmas, np.sqrt((1 - alphas_cumprod) / alphas_cumprod), rtol=1e-15
    )
    assert schedule.num_train_timesteps == len(schedule.sigmas) == len(alphas_cumprod)
    assert schedule.sigma_min == min(schedule.sigmas)
    assert schedule.sigma_max == max(schedule.sigmas)


def test_sigmas_ascend_strictly_and_stay_finite(schedule: NoiseSchedule) -> None:
    assert all(0.0 < low < high < math.inf for low, high in pairwise(schedule.sigmas))


def test_zero_snr_ends_at_sigma_4096() -> None:
    schedule = NoiseSchedule.from_config(NoiseConfig(zero_snr=True))
    assert schedule.sigma_max == pytest.approx(4096.0, rel=1e-7)  # sqrt(2^24 - 1)


def test_table_entries_survive_the_round_trip_to_the_bit(schedule: NoiseSchedule) -> None:
    for t, sigma in enumerate(schedule.sigmas):
        assert schedule.t_to_sigma(t) == sigma
        assert schedule.sigma_to_t(sigma) == t


def test_between_entries_sigma_is_geometric(schedule: NoiseSchedule) -> None:
    for t, (below, above) in enumerate(pairwise(schedule.sigmas)):
        assert schedule.t_to_sigma(t + 0.5) == pytest.approx(math.sqrt(below * above), rel=1e-13)


def test_fractions_survive_the_round_trip(schedule: NoiseSchedule) -> None:
    """Neighbouring sigmas differ by 1e-3 or more, so 1e-9 of a timestep is 1e-12 in sigma."""
    for t in np.linspace(0, schedule.num_train_timesteps - 1, 997):
        assert schedule.sigma_to_t(schedule.t_to_sigma(float(t))) == pytest.approx(t, abs=1e-9)


def test_both_directions_are_monotone(schedule: NoiseSchedule) -> None:
    last = schedule.num_train_timesteps - 1
    sigmas = [schedule.t_to_sigma(t) for t in linspace(0.0, last, 5 * last + 1)]
    assert all(low < high for low, high in pairwise(sigmas))
    levels = np.geomspace(schedule.sigma_min, schedule.sigma_max, 5000)
    timesteps = [schedule.sigma_to_t(float(sigma)) for sigma in levels]
    assert all(low < high for low, high in pairwise(timesteps))


def test_both_directions_are_clamped(schedule: NoiseSchedule) -> None:
    last = schedule.num_train_timesteps - 1
    assert schedule.sigma_to_t(0.0) == schedule.sigma_to_t(schedule.sigma_min * 0.99) == 0.0
    assert schedule.sigma_to_t(schedule.sigma_max * 1.01) == schedule.sigma_to_t(math.inf) == last
    assert schedule.t_to_sigma(-3.5) == schedule.sigma_min
    assert schedule.t_to_sigma(last + 7.25) == schedule.sigma_max


@pytest.mark.parity
def test_fractional_timesteps_are_those_of_diffusers() -> None:
    """diffusers works on float32 logarithms: neighbours differ by 5e-3, so t is good to 1e-3."""
    schedule = NoiseSchedule.from_config(NoiseConfig())
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    log_sigmas = np.log(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().numpy())
    for sigma in np.geomspace(0.0292, 14.6, 501):
        expected = scheduler._sigma_to_t(sigma, log_sigmas)
        assert schedule.sigma_to_t(float(sigma)) == pytest.approx(expected, abs=1e-3)


def test_explicit_betas_replace_the_named_schedule() -> None:
    betas = (0.1, 0.2, 0.5)
    schedule = NoiseSchedule.from_config(NoiseConfig(betas=betas, beta_schedule="linear"))
    assert schedule.alphas_cumprod == pytest.approx((0.9, 0.72, 0.36), rel=1e-15)
    assert schedule.num_train_timesteps == 3


@pytest.mark.parametrize("count", [2, 3, 10, 1000])
def test_linspace_is_numpys(count: int) -> None:
    ours = linspace(14.6, 0.03, count)
    np.testing.assert_allclose(ours, np.linspace(14.6, 0.03, count), rtol=1e-13)
    assert (ours[0], ours[-1]) == (14.6, 0.03)


def test_linspace_of_one_is_its_start() -> None:
    assert linspace(14.6, 0.03, 1) == [14.6]
