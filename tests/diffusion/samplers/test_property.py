"""Every sampler on every schedule with 1 to 30 steps: it ends, where it should, as it said.

The denoiser is the exact one for Gaussian data, so any state is legal and results stay small. All
10 500 runs are made, in one test per sampler.
"""

import math
from collections.abc import Iterator

import pytest
import torch
from analytic import last
from torch import Tensor

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.samplers.spec import Run, SamplerSpec
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import SPACINGS
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig, SamplerName, SpacingName, StepInfo

CPU = torch.device("cpu")
SHAPE = (1, 2, 2)
SD = NoiseConfig(steps_offset=1, final_alpha_one=False)
ZERO_SNR = NoiseConfig(zero_snr=True, spacing="trailing", prediction="v")
COSINE = NoiseConfig(beta_schedule="squaredcos_cap_v2")
TABLES = {config: NoiseSchedule.from_config(config) for config in (SD, ZERO_SNR, COSINE)}


class GaussianData:
    """E[x0 | x] for data N(0, 0.6^2), counting its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return x * (0.36 / (0.36 + sigma * sigma))


def make_plan(
    name: SamplerName, schedule: SpacingName, steps: int, config: NoiseConfig
) -> SamplingPlan:
    settings = Sampling(sampler=name, schedule=schedule, steps=steps)
    return SamplingPlan.make(settings, config, TABLES[config])


def down_to_zero(plan: SamplingPlan, config: NoiseConfig) -> SamplingPlan:
    """The same plan, but ending at sigma 0 where it would stop at the first table entry."""
    sigmas = (*plan.sigmas[:-1], 0.0)
    arguments = plan.spec.prepare(Run(config, TABLES[config], sigmas, plan.options))
    return SamplingPlan(plan.spec, plan.schedule, sigmas, plan.start, arguments, plan.options)


def check_run(plan: SamplingPlan) -> None:
    denoise, reports = GaussianData(), list[StepInfo]()
    result = plan.run(denoise, [1], SHAPE, CPU, on_step=reports.append)
    assert result.isfinite().all()
    # Data of deviation 0.6: even one crude step from sigma 15 stays near. From 20 000 it need not.
    if plan.sigmas[0] < 20.0 or len(plan.sigmas) > 20:
        assert result.abs().max() < 20.0
    assert plan.nfe is None or denoise.calls == plan.nfe
    assert reports[-1].sigma == plan.sigmas[-1]
    check_reports(plan.spec, reports)


def check_reports(spec: SamplerSpec, reports: list[StepInfo]) -> None:
    total = 0 if spec.nfe is None else len(reports)
    assert [info.index for info in reports] == list(range(len(reports)))
    assert all(info.total == total for info in reports)
    levels = [info.sigma for info in reports]
    assert levels == sorted(levels, reverse=True)


def every_plan(
    name: SamplerName, counts: range | tuple[int, ...], config: NoiseConfig
) -> Iterator[SamplingPlan]:
    for schedule in SPACINGS:
        for steps in counts:
            plan = make_plan(name, schedule, steps, config)
            yield plan
            if plan.sigmas[-1] > 0.0:
                yield down_to_zero(plan, config)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_schedule_with_1_to_30_steps(name: SamplerName) -> None:
    for plan in every_plan(name, range(1, 31), SD):
        check_run(plan)


@pytest.mark.parametrize("config", [ZERO_SNR, COSINE], ids=["zero-snr", "cosine"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_schedules_with_extreme_noise(name: SamplerName, config: NoiseConfig) -> None:
    """sigma_max is 4096 for zero-SNR models and 20 000 for the cosine schedule, not 15."""
    for plan in every_plan(name, (1, 2, 3, 7, 20), config):
        check_run(plan)


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_3m_sde"])
@pytest.mark.parametrize("schedule", SPACINGS)
def test_one_step_of_the_sde_solvers(name: SamplerName, schedule: SpacingName) -> None:
    """k-diffusion's own functions crash here: h of the last step is never set."""
    plan = make_plan(name, schedule, 1, SD)
    assert len(plan.sigmas) == 2
    check_run(plan)


@pytest.mark.parametrize("steps", [2, 10, 50, 200])
@pytest.mark.parametrize("name", ["dpmpp_2m", "deis", "unipc", "lms"])
def test_cosine_schedule_with_karras(name: SamplerName, steps: int) -> None:
    """diffusers rounds these to whole timesteps, gets duplicates, and divides by zero."""
    check_run(make_plan(name, "karras", steps, COSINE))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_constant_denoiser_returns_its_constant(name: SamplerName) -> None:
    """Whatever the noise on the way: at sigma 0 x is x0. Every x0 estimate reported is it too.

    Weights of multistep solvers cancel starting values of up to 15 in float32.
    """
    constant = torch.full((1, *SHAPE), 0.7)
    for plan in every_plan(name, (1, 2, 3, 7, 20), SD):
        reports: list[StepInfo] = []
        result = plan.run(lambda x, sigma: constant, [1], SHAPE, CPU, on_step=reports.append)
        if plan.sigmas[-1] == 0.0:
            torch.testing.assert_close(result, constant, rtol=0.0, atol=2e-4)
        for info in reports:
            torch.testing.assert_close(info.denoised, constant, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_reported_states_are_at_their_noise_levels(name: SamplerName) -> None:
    """With x0 = 0 known for sure, x is all noise: its deviation is the reported sigma."""
    shape = (1, 64, 64)
    plan = make_plan(name, "karras", 12, SD)
    reports: list[StepInfo] = []
    plan.run(lambda x, sigma: torch.zeros_like(x), [1], shape, CPU, on_step=reports.append)
    for info in reports:
        # 4096 elements give a deviation to 1.1 %; 5 standard errors.
        assert float(info.x.std()) == pytest.approx(info.sigma, rel=0.055, abs=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38])
@pytest.mark.parametrize("threshold", [20.0, 14.0, 10.0, 3.0, 0.5, 0.05, 0.03])
def test_an_adaptive_run_ends_even_when_the_model_breaks(threshold: float, value: float) -> None:
    """A network in half precision may overflow below some noise level: the run must end all the
    same, and let the engine report what came of it.
    """
    denoise = GaussianData()

    def broken(x: Tensor, sigma: float) -> Tensor:
        denoised = denoise(x, sigma)
        assert denoise.calls < 1000, "the run does not end"
        return torch.full_like(x, value) if sigma < threshold else denoised

    make_plan("dpm_adaptive", "karras", 10, SD).run(broken, [1], SHAPE, CPU)


def test_an_adaptive_run_takes_more_steps_for_a_smaller_tolerance() -> None:
    plan = make_plan("dpm_adaptive", "karras", 10, SD)
    x = plan.start * torch.ones(1, *SHAPE)

    def evaluations(tolerance: float) -> int:
        denoise = GaussianData()
        precision = {"rtol": tolerance, "atol": tolerance / 10}
        last(plan.spec.fn(denoise, x, plan.sigmas, noise=None, **precision))
        return denoise.calls

    assert evaluations(0.05) < evaluations(0.005) < evaluations(0.0005)
