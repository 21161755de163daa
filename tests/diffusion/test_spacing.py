"""Every spacing against an independent oracle: diffusers' schedulers, scipy, or its definition."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import diffusers
import numpy as np
import pytest
import scipy.stats
from diffusers.schedulers.scheduling_utils import AysSchedules
from diffusers_loop import numpy_2_warns

from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import (
    SPACINGS,
    Grid,
    SpacingOptions,
    make_sigmas,
    sigmas_from_timesteps,
)
from diffgen.errors import UsageError
from diffgen.types import AysName, NoiseConfig, SpacingName

pytestmark = numpy_2_warns

SD = NoiseSchedule.from_config(NoiseConfig())
SCHEDULES = {
    "stable-diffusion": SD,
    "zero-snr": NoiseSchedule.from_config(NoiseConfig(zero_snr=True)),
    "ddpm": NoiseSchedule.from_config(
        NoiseConfig(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    ),
    "cosine": NoiseSchedule.from_config(NoiseConfig(beta_schedule="squaredcos_cap_v2")),
}
OPTIONS = [
    SpacingOptions(grid=grid, steps_offset=offset)
    for grid in ("rounded", "exact", "extra")
    for offset in (0, 1)
]
GRID_CLASSES: dict[Grid, type] = {
    "rounded": diffusers.DDIMScheduler,
    "exact": diffusers.EulerDiscreteScheduler,
    "extra": diffusers.DPMSolverMultistepScheduler,
}
STEPS = [*range(1, 61), 77, 100, 250, 333, 500]


def spaced(name: SpacingName, steps: int, options: SpacingOptions = OPTIONS[2]) -> list[float]:
    return SPACINGS[name](SD, steps, options)


def timesteps_of(sigmas: Sequence[float]) -> list[float]:
    return [SD.sigma_to_t(sigma) for sigma in sigmas]


def scheduler(cls: type, steps: int, **settings: object) -> diffusers.SchedulerMixin:
    result = cls(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings)
    result.set_timesteps(steps)
    return result


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SPACINGS)
def test_exactly_the_steps_asked_for_strictly_descending(name: SpacingName, schedule: str) -> None:
    """Duplicates divide by zero in multistep samplers: peers crash on cosine with karras."""
    table = SCHEDULES[schedule]
    for options in [*OPTIONS, SpacingOptions(ays="sdxl"), SpacingOptions(rho=3.0)]:
        for steps in range(1, 51 if name == "lcm" else 61):
            sigmas = SPACINGS[name](table, steps, options)
            assert len(sigmas) == steps
            assert all(high > low for high, low in pairwise(sigmas)), (options, steps)
            assert 0.0 < sigmas[-1] <= sigmas[0] < math.inf


@pytest.mark.parametrize("name", SPACINGS)
def test_few_timesteps_are_enough(name: SpacingName) -> None:
    """A small model trained on 20 timesteps; LCM's usual 50 do not exist there."""
    table = NoiseSchedule.from_config(NoiseConfig(num_train_timesteps=20, beta_end=0.3))
    for options in OPTIONS[:4]:
        for steps in range(1, 10):
            sigmas = make_sigmas(name, table, steps, options)
            assert len(sigmas) == steps + 1
            assert all(high > low for high, low in pairwise(sigmas)), (options, steps)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SPACINGS)
def test_very_many_steps_work_or_are_refused(name: SpacingName, schedule: str) -> None:
    table = SCHEDULES[schedule]
    for options in OPTIONS:
        for steps in (500, 501, 750, 999, 1000):
            try:
                sigmas = make_sigmas(name, table, steps, options)
            except UsageError as error:
                assert "steps" in str(error)  # noqa: PT017
                continue
            assert len(sigmas) == steps + 1
            assert all(high > low for high, low in pairwise(sigmas)), (options, steps)


@pytest.mark.parametrize("name", SPACINGS)
def test_more_steps_than_timesteps_are_refused(name: SpacingName) -> None:
    with pytest.raises(UsageError, match=r"1001 steps.*1000 timesteps"):
        make_sigmas(name, SD, 1001, SpacingOptions())


@pytest.mark.parametrize("final", [0.0, 0.03])
def test_the_closing_level_is_added(final: float) -> None:
    sigmas = make_sigmas("karras", SD, 7, SpacingOptions(), final=final)
    assert sigmas == [*spaced("karras", 7), final]


def test_explicit_timesteps_are_looked_up() -> None:
    timesteps = [999, 749.5, 250, 0]
    sigmas = sigmas_from_timesteps(SD, timesteps, final=0.0)
    assert timesteps_of(sigmas[:-1]) == pytest.approx(timesteps, abs=1e-9)
    assert sigmas[-1] == 0.0


@pytest.mark.parity
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("grid", GRID_CLASSES)
def test_timestep_grids_are_diffusers(grid: Grid, spacing: SpacingName, offset: int) -> None:
    """Whole timesteps agree exactly; fractional ones were stored in float32 there.

    numpy's arange, which diffusers uses, may return one timestep too many for trailing; that last
    one is then -1, which is no timestep.
    """
    options = SpacingOptions(grid=grid, steps_offset=offset)
    tolerance = 1e-4 if grid == "exact" else 0.0
    for steps in STEPS:
        oracle = scheduler(GRID_CLASSES[grid], steps, timestep_spacing=spacing, steps_offset=offset)
        expected = [t for t in oracle.timesteps.tolist() if t >= 0]
        ours = timesteps_of(spaced(spacing, steps, options))
        assert ours == pytest.approx(expected, abs=tolerance), steps


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "setting"),
    [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")],
)
def test_karras_and_exponential_are_diffusers(name: SpacingName, setting: str) -> None:
    """diffusers' ends come from its float32 table, where sigma_min is off by 1.3e-5."""
    for steps in range(2, 61):
        oracle = scheduler(
            diffusers.EulerDiscreteScheduler,
            steps,
            timestep_spacing="linspace",
            **{setting: True},
        )
        np.testing.assert_allclose(
            [*spaced(name, steps), 0.0], oracle.sigmas.numpy(), rtol=2e-5, err_msg=str(steps)
        )


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0, 10.0])
def test_karras_is_equation_5(rho: float) -> None:
    """arXiv:2206.00364, equation 5."""
    i, steps = np.arange(12), 12
    high, low = SD.sigma_max ** (1 / rho), SD.sigma_min ** (1 / rho)
    expected = (high + i / (steps - 1) * (low - high)) ** rho
    np.testing.assert_allclose(
        spaced("karras", steps, SpacingOptions(rho=rho)), expected, rtol=1e-12
    )


@pytest.mark.parametrize("rho", [None, 1.0, 2.0, 0.5])
def test_polyexponential_is_a_power_in_log_sigma(rho: float | None) -> None:
    sigmas = spaced("polyexponential", 9, SpacingOptions(rho=rho))
    low, high = np.log(SD.sigma_min), np.log(SD.sigma_max)
    depth = (np.log(sigmas) - low) / (high - low)
    np.testing.assert_allclose(depth, np.linspace(1, 0, 9) ** (rho or 1.0), atol=1e-12)


def test_exponential_ignores_rho() -> None:
    assert spaced("exponential", 9, SpacingOptions(rho=3.0)) == spaced("exponential", 9)


def test_beta_is_the_quantile_function() -> None:
    """ComfyUI rounds to whole timesteps and drops duplicates; ours keep their fractions."""
    for steps in (*range(1, 61), 200, 1000):
        quantiles = scipy.stats.beta.ppf(1 - np.arange(steps) / steps, 0.6, 0.6)
        np.testing.assert_allclose(
            timesteps_of(spaced("beta", steps)), 999 * quantiles, atol=2e-3, err_msg=str(steps)
        )


@pytest.mark.parity
@pytest.mark.parametrize(
    ("family", "model"), [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL")]
)
def test_ays_at_10_steps_is_the_published_list(family: AysName, model: str) -> None:
    sigmas = spaced("ays", 10, SpacingOptions(ays=family))
    assert sigmas == pytest.approx(AysSchedules[f"{model}Sigmas"][:10], rel=1e-14)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("family", "model"), [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL")]
)
def test_ays_sigmas_are_near_the_published_timesteps(family: AysName, model: str) -> None:
    """The authors rounded both lists, sigmas to three digits: they agree to two timesteps."""
    sigmas = spaced("ays", 10, SpacingOptions(ays=family))
    assert timesteps_of(sigmas) == pytest.approx(AysSchedules[f"{model}Timesteps"], abs=2.0)


@pytest.mark.parametrize("steps", [1, 3, 9, 15, 20, 50])
def test_ays_at_other_counts_is_log_linear(steps: int) -> None:
    """The authors' recipe: the list with its end 0.029 as knots, interpolated in log sigma."""
    knots = np.array([*AysSchedules["StableDiffusionSigmas"][:10], 0.029])
    at = np.linspace(0, 1, steps + 1)[:-1]
    expected = np.exp(np.interp(at, np.linspace(0, 1, 11), np.log(knots)))
    np.testing.assert_allclose(spaced("ays", steps), expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_kl_optimal_is_uniform_in_the_angle(steps: int) -> None:
    sigmas = spaced("kl_optimal", steps)
    assert sigmas[0] == pytest.approx(SD.sigma_max, rel=1e-12)
    assert sigmas[-1] == pytest.approx(SD.sigma_min, rel=1e-12)
    angles = np.diff(np.arctan(sigmas))
    np.testing.assert_allclose(angles, angles[0], rtol=1e-10)


DEFINITIONS: dict[SpacingName, Callable[[int], np.ndarray]] = {
    "normal": lambda n: np.linspace(999, 0, n),
    "sgm_uniform": lambda n: np.linspace(999, 0, n + 1)[:-1],
    "simple": lambda n: 999 - np.floor(np.arange(n) * 1000 / n),
    "ddim_uniform": lambda n: (1 + np.arange(n) * (1000 // n))[::-1],
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_comfyui_spacings_by_definition(name: SpacingName) -> None:
    for steps in range(1, 61):
        ours = timesteps_of(spaced(name, steps))
        assert ours == pytest.approx(DEFINITIONS[name](steps), abs=1e-9), steps


@pytest.mark.parity
def test_lcm_is_the_lcm_scheduler() -> None:
    for steps in range(1, 51):
        oracle = scheduler(diffusers.LCMScheduler, steps)
        assert timesteps_of(spaced("lcm", steps)) == oracle.timesteps.tolist(), steps


@pytest.mark.parity
@pytest.mark.parametrize("origin", [8, 50, 60, 100])
def test_lcm_picks_from_the_grid_that_the_checkpoint_names(origin: int) -> None:
    options = SpacingOptions(distilled_steps=origin)
    for steps in (1, 3, origin - 1, origin):
        oracle = diffusers.LCMScheduler(original_inference_steps=origin)
        oracle.set_timesteps(steps)
        assert timesteps_of(spaced("lcm", steps, options)) == oracle.timesteps.tolist()


@pytest.mark.parity
@pytest.mark.parametrize(("origin", "steps"), [(50, 51), (50, 600), (8, 9)])
def test_lcm_refuses_what_the_lcm_scheduler_refuses(origin: int, steps: int) -> None:
    """Beyond the grid there are no timesteps that the student was taught."""
    oracle = diffusers.LCMScheduler(original_inference_steps=origin)
    with pytest.raises(ValueError, match="smaller than `num_inference_steps`"):
        oracle.set_timesteps(steps)
    with pytest.raises(UsageError, match=f"{steps} steps .* take at most {origin}, or another"):
        make_sigmas("lcm", SD, steps, SpacingOptions(distilled_steps=origin))


@pytest.mark.parametrize("name", SPACINGS)
def test_spacings_start_at_the_top_or_where_their_authors_do(name: SpacingName) -> None:
    """All but these start at (nearly) pure noise; leading and ddim_uniform famously do not."""
    top = spaced(name, 20, replace(OPTIONS[2], steps_offset=1))[0]
    expected = {"leading": SD.sigmas[951], "ddim_uniform": SD.sigmas[951], "ays": 14.615}
    assert top == pytest.approx(expected.get(name, SD.sigma_max), rel=1e-12)
