"""Flows and EDM: the same latents as diffusers' loop over the same U-Net."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import (
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UNet2DConditionModel,
)

from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.noise import StreamNoise
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import SPACINGS
from diffgen.errors import UsageError
from diffgen.settings.sampling import Sampling
from diffgen.types import Conditioning, NoiseConfig

CPU = torch.device("cpu")
SHAPE = (4, 8, 8)
CONTEXT = torch.linspace(-1, 1, 1 * 5 * 16).reshape(1, 5, 16)
COND = Conditioning(CONTEXT)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()

    @torch.inference_mode()
    def call(x, t, cond):
        return unet(x, t, cond.context).sample

    return call


def ours(network, config, **settings):
    schedule = NoiseSchedule.from_config(config)
    plan = SamplingPlan.make(Sampling(**settings), config, schedule)
    model = ModelDenoiser(network, schedule, config.prediction)
    return plan.run(lambda x, sigma: model(x, sigma, COND), [5], SHAPE, CPU)


def theirs(network, scheduler, steps, scale):
    scheduler.set_timesteps(steps)
    x = StreamNoise([5], SHAPE, CPU).draw() * scale(scheduler)
    for t in scheduler.timesteps:
        taken = x
        if hasattr(scheduler, "scale_model_input"):
            taken = scheduler.scale_model_input(x, t)
        output = network(taken, t.expand(1), COND)
        x = scheduler.step(output, t, x, return_dict=False)[0]
    return x


def worst(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_flow_goes_as_flow_match_euler(network, shift, steps):
    config = NoiseConfig(prediction="flow", shift=shift, sampler="euler", spacing="linspace")
    found = ours(network, config, steps=steps)
    expected = theirs(
        network, FlowMatchEulerDiscreteScheduler(shift=shift), steps, lambda scheduler: 1.0
    )
    assert worst(found, expected) < 3e-4  # its first step begins at s = 1 - 2^-12


@pytest.mark.parametrize("steps", [2, 10])
def test_a_flow_goes_as_flow_match_heun(network, steps):
    # Heun's is a plain average of slopes in s, ours in sigma: equal only as steps get short.
    config = NoiseConfig(prediction="flow", shift=1.0, sampler="heun", spacing="linspace")
    fine = ours(network, config, steps=400)
    expected = theirs(network, FlowMatchHeunDiscreteScheduler(), 400, lambda scheduler: 1.0)
    assert worst(fine, expected) < 2e-3
    assert torch.isfinite(ours(network, config, steps=steps)).all()


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize(
    ("prediction", "options"),
    [
        ("edm", {"sigma_max": 80.0, "sigma_data": 0.5}),
        ("edm_v", {"sigma_max": 120.0, "sigma_data": 1.0, "prediction_type": "v_prediction"}),
    ],
)
def test_edm_goes_as_edm_euler(network, prediction, options, spacing):
    config = NoiseConfig(prediction=prediction, sampler="euler", spacing=spacing)
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_schedule=spacing, **options)
    expected = theirs(network, scheduler, 12, lambda it: it.init_noise_sigma)
    assert worst(ours(network, config, steps=12), expected) < 1e-5


def test_edm_goes_as_edm_dpm_solver(network):
    config = NoiseConfig(prediction="edm", sampler="dpmpp_2m", spacing="karras")
    scheduler = EDMDPMSolverMultistepScheduler(final_sigmas_type="zero")
    expected = theirs(network, scheduler, 20, lambda it: it.init_noise_sigma)
    assert worst(ours(network, config, steps=20), expected) < 1e-5


@pytest.mark.parametrize("prediction", ["flow", "edm", "edm_v"])
def test_times_and_noise_levels_are_inverse(prediction):
    schedule = NoiseSchedule.from_config(NoiseConfig(prediction=prediction))
    for t in (0.0, 0.25, 7.0, 500.5, 998.0, 999.0):
        assert schedule.sigma_to_t(schedule.t_to_sigma(t)) == pytest.approx(t, abs=1e-6)


def test_a_network_is_told_the_time_in_its_own_words():
    flow = NoiseSchedule.from_config(NoiseConfig(prediction="flow", shift=1.0))
    assert flow.time(1.0) == pytest.approx(500.0)
    assert flow.time(flow.sigma_max) == 1000.0
    edm = NoiseSchedule.from_config(NoiseConfig(prediction="edm"))
    assert edm.time(80.0) == pytest.approx(math.log(80.0) / 4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["flow", "edm", "edm_v"])
def test_every_sampler_finds_one_picture_in_other_noise(sampler, prediction):
    """A network that knows one picture: whatever the noise, that picture comes out."""
    config = NoiseConfig(prediction=prediction, sampler="euler", spacing="linspace")
    schedule = NoiseSchedule.from_config(config)
    picture = torch.linspace(-2, 2, math.prod(SHAPE)).reshape(1, *SHAPE)
    seen = []

    def denoise(x, sigma):
        seen.append(sigma)
        return picture.expand_as(x)

    plan = SamplingPlan.make(Sampling(sampler=sampler, steps=12), config, schedule)
    found = plan.run(denoise, [5], SHAPE, CPU)
    torch.testing.assert_close(found, picture, atol=2e-2, rtol=0)
    assert seen[0] == pytest.approx(schedule.sigma_max) or plan.schedule == "lcm"


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", ["flow", "edm"])
def test_every_spacing_descends_through_other_noise(spacing, prediction):
    config = NoiseConfig(prediction=prediction, sampler="euler")
    schedule = NoiseSchedule.from_config(config)
    settings = Sampling(schedule=spacing, steps=8)
    if spacing == "ays":
        with pytest.raises(UsageError, match="other noise"):
            SamplingPlan.make(settings, config, schedule)
        return
    sigmas = SamplingPlan.make(settings, config, schedule).sigmas
    assert len(sigmas) == 9
    assert all(a > b for a, b in pairwise(sigmas))
    assert sigmas[-1] == 0.0
