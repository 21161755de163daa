import math

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from diffgen.diffusion.course import constant_guides
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import Guidance
from diffgen.diffusion.guided import GuidedDenoiser
from diffgen.diffusion.prediction import add_noise, predict_x0, regression_target
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.train.targets import consistency
from diffgen.types import Conditioning, NoiseConfig

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}
GRID = consistency.distillation_timesteps(1000, 50)


def tables(**options):
    """Our alpha_bar, and the betas that make diffusers' schedulers compute the same."""
    alphas_cumprod = NoiseSchedule.from_config(NoiseConfig(**options)).alphas_cumprod
    ratios = [b / a for a, b in zip((1.0, *alphas_cumprod), alphas_cumprod, strict=False)]
    return torch.tensor(alphas_cumprod), [1.0 - ratio for ratio in ratios]


def lcm_scheduler(prediction="eps", **options):
    _, betas = tables()
    return LCMScheduler(trained_betas=betas, prediction_type=PREDICTIONS[prediction], **options)


def test_the_scalings_are_those_of_the_sampler():
    scheduler = lcm_scheduler()
    t = torch.tensor([0, 1, *GRID])
    expected = [scheduler.get_scalings_for_boundary_condition_discrete(int(i)) for i in t]
    for ours, theirs in zip(
        consistency.boundary_scalings(t), zip(*expected, strict=True), strict=True
    ):
        assert ours.tolist() == pytest.approx([float(value) for value in theirs], rel=1e-6)
    c_skip, c_out = consistency.boundary_scalings(torch.tensor([0]))
    assert (float(c_skip), float(c_out)) == (1.0, 0.0)


@pytest.mark.parametrize(("count", "steps"), [(1000, 50), (1000, 100), (20, 20), (999, 50)])
def test_the_grid_is_that_of_the_sampler(count, steps):
    scheduler = LCMScheduler(num_train_timesteps=count, original_inference_steps=steps)
    scheduler.set_timesteps(steps)
    assert consistency.distillation_timesteps(count, steps) == scheduler.timesteps.tolist()[::-1]


def test_a_short_schedule_is_a_grid_by_itself():
    assert consistency.distillation_timesteps(4, 50) == [0, 1, 2, 3]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_right_output_gives_x0_back(prediction):
    torch.manual_seed(0)
    alpha_bar = tables()[0][[19, 499, 999]]
    x0, noise = torch.randn(2, 3, 4, 5, 5).unbind()
    x = add_noise(x0, noise, alpha_bar)
    output = regression_target(x0, noise, alpha_bar, prediction)
    found = predict_x0(output, x, alpha_bar, prediction)
    # At t = 999 the eps of float32 is divided by 0.068, which costs a digit.
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-5)
    clipped = predict_x0(output, x, alpha_bar, prediction, clip=0.5)
    torch.testing.assert_close(clipped, x0.clamp(-0.5, 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("to_one", [True, False])
def test_the_solver_is_ddim(prediction, to_one):
    """One step of each of the 50, the last one included, against diffusers."""
    torch.manual_seed(1)
    alphas_cumprod, betas = tables()
    scheduler = DDIMScheduler(
        trained_betas=betas,
        prediction_type=PREDICTIONS[prediction],
        clip_sample=False,
        set_alpha_to_one=to_one,
    )
    scheduler.set_timesteps(50)
    final = 1.0 if to_one else float(alphas_cumprod[0])
    levels = torch.tensor([final, *alphas_cumprod[GRID]])
    x, output = torch.randn(2, 50, 4, 3, 3).unbind()
    x0 = predict_x0(output, x, levels[1:], prediction)
    ours = consistency.ddim_step(x, x0, levels[1:], levels[:-1])
    for index, t in enumerate(GRID):
        theirs = scheduler.step(output[index], t, x[index]).prev_sample
        # Two orders of the same float32 sums: values reach 20 where eps is divided by 0.068.
        torch.testing.assert_close(ours[index], theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_consistency_function_is_what_the_sampler_computes(prediction):
    torch.manual_seed(2)
    alphas_cumprod, _ = tables()
    scheduler = lcm_scheduler(prediction)
    for t in (19, 259, 999):
        scheduler.set_timesteps(timesteps=[t])
        x, output = torch.randn(2, 1, 4, 3, 3).unbind()
        x0 = predict_x0(output, x, alphas_cumprod[[t]], prediction)
        ours = consistency.consistency_function(x, x0, torch.tensor([t]))
        theirs = scheduler.step(output, t, x).denoised
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_at_the_data_it_is_the_state_itself():
    x, x0 = torch.randn(2, 3, 4, 2, 2).unbind()
    assert torch.equal(consistency.consistency_function(x, x0, torch.zeros(3)), x)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_guidance_is_that_of_generate(prediction):
    torch.manual_seed(3)
    x, cond, uncond = torch.randn(3, 1, 4, 3, 3).unbind()
    schedule = NoiseSchedule.from_config(NoiseConfig())
    sigma = schedule.sigmas[499]

    def network(x, t, given):
        return torch.cat([uncond, cond])

    denoise = GuidedDenoiser(
        ModelDenoiser(network, schedule, prediction),
        constant_guides(*[Conditioning(torch.zeros(1, 1, 1))] * 2),
        Guidance.constant(4.0),
    )
    output = consistency.guided(cond, uncond, torch.tensor([4.0]))
    alpha_bar = torch.tensor([schedule.alphas_cumprod[499]])
    ours = predict_x0(output, x, alpha_bar, prediction)
    theirs = denoise(x * math.sqrt(1 + sigma * sigma), sigma)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    assert torch.equal(consistency.guided(cond, uncond, torch.zeros(1)), uncond)


def test_pseudo_huber():
    zero, c = torch.zeros(3, 2, 2, 2), 0.01
    far = torch.stack([zero[0], zero[0] + 0.001, zero[0] + 5.0])
    exact, near, wide = consistency.pseudo_huber(far, zero, c).tolist()
    assert exact == 0.0
    assert near == pytest.approx(0.001**2 / (2 * c), rel=0.01)  # quadratic below c
    assert wide == pytest.approx(5.0 - c, rel=1e-5)  # the distance itself far above
