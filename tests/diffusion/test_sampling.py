"""Plans: how settings become noise levels, and runs: how seeds become latents."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from analytic import gaussian, last
from torch import Tensor

from diffgen.diffusion.noise import StreamNoise
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan, steps_of
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import SpacingOptions, make_sigmas
from diffgen.errors import UsageError
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig, SamplerName, SpacingName, StepInfo

CONFIG = NoiseConfig(steps_offset=1)
SD = NoiseSchedule.from_config(CONFIG)
CPU = torch.device("cpu")
SHAPE = (4, 2, 2)
DENOISE = gaussian(std=0.6, mean=0.3)


def make(config: NoiseConfig = CONFIG, **settings: object) -> SamplingPlan:
    return SamplingPlan.make(Sampling(**settings), config, SD)


def test_an_unset_setting_is_the_checkpoints() -> None:
    config = replace(CONFIG, sampler="heun", spacing="karras")
    plan = make(config)
    assert plan.spec is SAMPLERS["heun"]
    assert plan.schedule == "karras"
    assert list(plan.sigmas) == make_sigmas("karras", SD, 20, SpacingOptions())


def test_a_setting_overrides_the_checkpoint() -> None:
    plan = make(sampler="euler", steps=7, schedule="sgm_uniform")
    assert plan.spec.name == "euler"
    assert list(plan.sigmas) == make_sigmas("sgm_uniform", SD, 7, SpacingOptions())


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_distilled_samplers_bring_their_own_schedule(name: SamplerName) -> None:
    """Their models know 50 timesteps, whatever spacing the base model's config names."""
    plan = make(sampler=name)
    assert plan.schedule == "lcm"
    assert plan.steps_run == 4
    assert make(sampler=name, schedule="karras").schedule == "karras"


def test_rho_and_the_model_family_reach_the_spacing() -> None:
    steeper = make(sampler="euler", schedule="karras", rho=3.0, steps=9)
    assert list(steeper.sigmas) == make_sigmas("karras", SD, 9, SpacingOptions(rho=3.0))
    settings = Sampling(sampler="euler", schedule="ays", steps=10)
    sdxl = SamplingPlan.make(settings, CONFIG, SD, ays="sdxl")
    assert sdxl.sigmas[1] == pytest.approx(6.315)


@pytest.mark.parametrize(
    ("sampler", "final_alpha_one", "ends_at_zero"),
    [
        ("ddim", True, True),
        ("ddim", False, False),
        ("ddim", None, True),
        ("plms", True, True),
        ("plms", False, False),
        ("plms", None, False),
        ("euler", False, True),
        ("dpmpp_2m", False, True),
        ("deis", True, False),
        ("tcd", True, False),
        ("sa_solver", None, False),
    ],
)
def test_where_a_run_ends(
    sampler: SamplerName, final_alpha_one: bool | None, ends_at_zero: bool
) -> None:
    """On timesteps as each one's authors do; a list of noise levels always goes on to 0."""
    config = replace(CONFIG, final_alpha_one=final_alpha_one)
    on_timesteps = make(config, sampler=sampler, schedule="trailing", steps=7)
    assert on_timesteps.sigmas[-1] == (0.0 if ends_at_zero else SD.sigma_min)
    for schedule in ("karras", "exponential", "ays"):
        assert make(config, sampler=sampler, schedule=schedule, steps=7).sigmas[-1] == 0.0


@pytest.mark.parametrize("sampler", ["euler", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("schedule", ["leading", "trailing", "karras"])
def test_how_a_run_starts(sampler: SamplerName, schedule: SpacingName) -> None:
    """diffusers: sqrt(1 + sigma^2) for VP samplers, and for all where spacing is leading."""
    plan = make(sampler=sampler, schedule=schedule)
    sigma = plan.sigmas[0]
    vp = sampler != "euler" or schedule == "leading"
    assert plan.start == pytest.approx(math.hypot(1.0, sigma) if vp else sigma, rel=1e-15)


def test_explicit_sigmas_are_taken_as_they_are() -> None:
    levels = (14.0, 3.0, 0.5)
    for given in (levels, (*levels, 0.0)):
        plan = make(sampler="euler", sigmas=given)
        assert plan.sigmas == (*levels, 0.0)
        assert plan.schedule is None
        assert plan.nfe == 3


def test_explicit_timesteps_are_looked_up() -> None:
    plan = make(sampler="euler", timesteps=(999.0, 500.0, 249.5))
    assert plan.sigmas == pytest.approx(
        (SD.sigmas[999], SD.sigmas[500], math.sqrt(SD.sigmas[249] * SD.sigmas[250]), 0.0)
    )
    tcd = make(sampler="tcd", timesteps=(999.0, 500.0))
    assert tcd.sigmas == (SD.sigmas[999], SD.sigmas[500], SD.sigma_min)


@pytest.mark.parametrize(
    ("eta", "landings"), [(0.0, (500, 250)), (0.3, (350, 175)), (0.9, (50, 25)), (1.0, (0, 0))]
)
def test_tcd_lands_at_a_whole_share_of_the_next_timestep(
    eta: float, landings: tuple[int, int]
) -> None:
    """floor((1 - eta) t), where 0.1 times 500 must not come out as 49.999."""
    plan = make(sampler="tcd", timesteps=(999.0, 500.0, 250.0), eta=eta)
    expected = [*(SD.sigmas[t] for t in landings), SD.sigma_min]
    assert list(plan.arguments["landings"]) == expected


@pytest.mark.parametrize(
    ("sampler", "option", "message"),
    [("ddpm", "eta", "no such setting"), ("euler", "eta", "s_churn")],
)
def test_options_a_sampler_lacks_are_refused(
    sampler: SamplerName, option: str, message: str
) -> None:
    with pytest.raises(UsageError, match=f"sampler {sampler} has no {option}.*{message}"):
        make(sampler=sampler, **{option: 0.5})


def test_options_default_to_the_registry() -> None:
    assert make(sampler="euler_a").options == {"eta": 1.0}
    assert make(sampler="euler_a", eta=0.4).options == {"eta": 0.4}
    assert make(sampler="ddim").options == {"eta": 0.0}


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="1001 steps"):
        make(sampler="euler", schedule="karras", steps=1001)


@pytest.mark.parametrize("steps", [999, 1000])
@pytest.mark.parametrize("schedule", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "lms", "deis"])
def test_every_timestep_can_be_used_or_the_count_is_refused(
    sampler: SamplerName, schedule: SpacingName, steps: int
) -> None:
    """Duplicate noise levels at the ends of the table must not divide by zero."""
    try:
        plan = make(sampler=sampler, schedule=schedule, steps=steps)
    except UsageError as error:
        assert "steps" in str(error)  # noqa: PT017
        return
    assert plan.run(DENOISE, [1], SHAPE, CPU).isfinite().all()


def test_a_run_starts_from_the_seeds_noise() -> None:
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        seen.append(x)
        return x

    make(sampler="euler", schedule="karras", steps=1).run(denoise, [5, 6], SHAPE, CPU)
    noise = StreamNoise([5, 6], SHAPE, CPU).draw()
    torch.testing.assert_close(seen[0], noise * SD.sigma_max)


def test_noise_on_the_way_can_be_replaced() -> None:
    """The start noise stays the seed's; with silence, eta = 1 leaves only the shrinking to x0."""
    plan = make(sampler="ddpm", sigmas=(4.0, 2.0, 1.0))
    states: list[Tensor] = []
    plan.run(
        lambda x, sigma: torch.zeros_like(x),
        [5],
        SHAPE,
        CPU,
        noise=lambda a, b: torch.zeros(1),
        on_step=lambda info: states.append(info.x),
    )
    start = StreamNoise([5], SHAPE, CPU).draw() * plan.start
    torch.testing.assert_close(states[0], start * (2.0 / 4.0) ** 2)
    torch.testing.assert_close(states[1], start * (1.0 / 4.0) ** 2)


def test_a_run_that_ends_early_is_scaled_back() -> None:
    """At the first table entry x = x0 + sigma noise; latents have the variance of x0."""
    reports: list[StepInfo] = []
    plan = make(sampler="deis", schedule="trailing", steps=5)
    latents = plan.run(DENOISE, [1], SHAPE, CPU, on_step=reports.append)
    assert reports[-1].sigma == SD.sigma_min
    torch.testing.assert_close(latents, reports[-1].x / math.hypot(1.0, SD.sigma_min))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_depends_on_its_seed_only(name: SamplerName) -> None:
    """Bit for bit, for a denoiser that treats images alike. The adaptive solver measures its error
    over the whole state, so it is run one image at a time.
    """
    plan = make(sampler=name, schedule="karras", steps=6)
    seeds = [3, 11, 4]
    alone = torch.cat([plan.run(DENOISE, [seed], SHAPE, CPU) for seed in seeds])
    assert len({tuple(image.flatten().tolist()) for image in alone}) == 3
    assert torch.equal(alone[:1], plan.run(DENOISE, seeds[:1], SHAPE, CPU))
    if plan.nfe is not None:
        assert torch.equal(plan.run(DENOISE, seeds, SHAPE, CPU), alone)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_keeps_float32_and_its_input(name: SamplerName) -> None:
    plan = make(sampler=name, schedule="karras", steps=6)
    x = 10.0 * torch.ones(1, *SHAPE)
    noise = StreamNoise([1], SHAPE, CPU)
    result = last(plan.spec.fn(DENOISE, x, plan.sigmas, noise=noise, **plan.arguments))
    assert result.dtype == torch.float32
    assert torch.equal(x, 10.0 * torch.ones(1, *SHAPE))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("strength", "steps"), [(0.6, 6), (0.29, 2), (0.1, 1), (1.0, 10)])
def test_strength_takes_the_last_levels_of_the_whole_run(
    name: SamplerName, strength: float, steps: int
) -> None:
    whole = make(sampler=name, schedule="karras", steps=10)
    part = make(sampler=name, schedule="karras", steps=10, last=strength)
    assert part.sigmas == whole.sigmas[10 - steps :]
    evaluations = 0

    def count(x: Tensor, sigma: float) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return DENOISE(x, sigma)

    assert part.run(count, [1], SHAPE, CPU).isfinite().all()
    assert part.nfe in (None, evaluations)


def test_no_strength_is_lost_to_rounding() -> None:
    """0.29 * 100 is 28.999999999999996."""
    assert [steps_of(i / 100, 100) for i in range(101)] == list(range(101))


def test_a_strength_of_no_step_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"0\.02 is less than one of 20 steps; take at least 0\.05"
    ):
        make(sampler="euler", last=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_strength_0_leaves_a_picture_as_it_is(name: SamplerName) -> None:
    plan = make(sampler=name, last=0.0)
    noise, source = plan.noise([1], SHAPE, CPU)
    init = torch.randn(1, *SHAPE)
    x = plan.walk(DENOISE, plan.begin(noise, init), source)
    assert torch.equal(plan.latents(x), init)
    assert plan.nfe == 0


@pytest.mark.parametrize("share", [0.8, 0.5, 0.123])
@pytest.mark.parametrize("schedule", ["leading", "karras"])
def test_two_stretches_make_up_the_whole(share: float, schedule: SpacingName) -> None:
    whole = make(sampler="euler", schedule=schedule)
    first, second = (
        make(sampler="euler", schedule=schedule, stretch=s) for s in ((0.0, share), (share, 1.0))
    )
    assert first.sigmas[:-1] + second.sigmas == whole.sigmas
    timesteps = [SD.sigma_to_t(sigma) for sigma in whole.sigmas[:-1]]
    cutoff = round(1000 - share * 1000)  # as diffusers' denoising_end
    assert first.steps_run == len([t for t in timesteps if t >= cutoff])


def test_a_stretch_without_a_step_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no step lies between 0\.99 and 1 of the way"):
        make(sampler="euler", schedule="trailing", steps=5, stretch=(0.99, 1.0))


def test_a_picture_begins_under_the_noise_of_the_first_level() -> None:
    """Whatever start noise alone has: as diffusers adds noise to pictures."""
    plan = make(sampler="ddim", schedule="leading", last=0.5)
    noise, init = torch.randn(2, 1, *SHAPE)
    torch.testing.assert_close(plan.begin(noise, init), init + plan.sigmas[0] * noise)


@pytest.mark.parametrize("name", ["euler", "euler_a", "dpmpp_sde"])
def test_variations_lead_from_one_seed_to_the_other(name: SamplerName) -> None:
    plan = make(sampler=name, schedule="karras", steps=5)

    def varied(share: float) -> Tensor:
        noise, source = plan.noise([3], SHAPE, CPU, variation=(8, share))
        return plan.walk(DENOISE, plan.begin(noise), source)

    first, second = plan.run(DENOISE, [3], SHAPE, CPU), plan.run(DENOISE, [8], SHAPE, CPU)
    assert torch.equal(varied(0.0), first)
    assert torch.equal(varied(1.0), second)
    near, middle = varied(0.1), varied(0.5)
    assert 0.0 < (near - first).norm() < (middle - first).norm() < (second - first).norm()


@pytest.mark.parametrize(
    "module", ["schedule", "spacing", "samplers", "sampling", "samplers.unipc"]
)
def test_planning_does_not_import_torch(module: str) -> None:
    """A wrong setting fails in milliseconds, not after seconds of imports."""
    code = f"import sys, diffgen.diffusion.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plan_is_made_without_torch() -> None:
    code = """
import sys
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.settings.sampling import Sampling
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.types import NoiseConfig
config = NoiseConfig()
tables = NoiseSchedule.from_config(config)
for sampler in ("tcd", "restart", "sa_solver"):
    assert SamplingPlan.make(Sampling(sampler=sampler), config, tables).nfe > 0
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
