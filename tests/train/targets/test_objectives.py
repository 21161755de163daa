import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from diffgen.diffusion.prediction import add_noise, column, regression_target
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.train.optimizer import learning_rate
from diffgen.train.recipe.recipe import OptimizerRecipe
from diffgen.train.targets import objectives
from diffgen.types import NoiseConfig

PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 3, 3, 3, generator=generator)


def alpha_bars(t, **options):
    tables = NoiseSchedule.from_config(NoiseConfig(**options))
    return torch.tensor(tables.alphas_cumprod)[t]


@pytest.mark.parity
@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_and_targets_are_those_of_diffusers(pair, zero_snr):
    x0, noise = pair
    t = torch.tensor([0, 300, 700, 999])
    theirs = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=zero_snr,
    )
    a = alpha_bars(t, zero_snr=zero_snr)
    # Their table is float32: relative errors of 1e-5, and their last alpha_bar is 0, ours 2^-24.
    near = {"rtol": 0, "atol": 1e-3 if zero_snr else 2e-5}
    torch.testing.assert_close(add_noise(x0, noise, a), theirs.add_noise(x0, noise, t), **near)
    torch.testing.assert_close(
        regression_target(x0, noise, a, "v"), theirs.get_velocity(x0, noise, t), **near
    )


@pytest.mark.parity
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_are_those_of_the_diffusers_example(prediction):
    t = torch.tensor([1, 100, 400, 800, 999])
    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    snr = compute_snr(theirs, t)
    clipped = torch.minimum(snr, torch.full_like(snr, 5.0))
    divisor = {"eps": snr, "v": snr + 1, "sample": torch.ones_like(snr)}[prediction]
    ours = objectives.min_snr_weight(alpha_bars(t), prediction, 5.0)
    torch.testing.assert_close(ours, clipped / divisor, rtol=1e-4, atol=0)  # float32 tables


def test_min_snr_by_hand():
    a = torch.tensor([0.9, 0.5])  # SNR 9 and 1
    close = torch.testing.assert_close
    close(objectives.min_snr_weight(a, "eps", 5.0), torch.tensor([5 / 9, 1.0]))
    close(objectives.min_snr_weight(a, "v", 5.0), torch.tensor([0.5, 0.5]))
    close(objectives.min_snr_weight(a, "sample", 5.0), torch.tensor([5.0, 1.0]))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_error_in_x0_weighs_the_same_in_every_prediction(pair, prediction):
    """The point of the divisors: the weighted losses of equal x0 estimates agree."""
    x0, noise = pair
    a = torch.tensor([0.99, 0.9, 0.5, 0.1])
    noisy = add_noise(x0, noise, a)
    guess = x0 + 0.1
    implied = (noisy - column(a.sqrt()) * guess) / column((1 - a).sqrt())
    said = regression_target(guess, implied, a, prediction)
    wanted = regression_target(x0, noise, a, prediction)
    loss = objectives.min_snr_weight(a, prediction, 5.0) * objectives.squared_error(said, wanted)
    expected = torch.minimum(a / (1 - a), torch.tensor(5.0)) * 0.01
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)  # float32 differences of 0.1


def test_eps_and_sample_targets(pair):
    x0, noise = pair
    a = torch.full((4,), 0.3)
    assert regression_target(x0, noise, a, "eps") is noise
    assert regression_target(x0, noise, a, "sample") is x0


def test_huber_is_square_near_zero_and_linear_far_out():
    zero = torch.zeros(1, 1, 1, 1)
    small, big, huge = (torch.full_like(zero, d) for d in (1e-2, 10.0, 20.0))
    assert objectives.huber_error(small, zero, 0.5).item() == pytest.approx(1e-4, rel=1e-2)
    slope = (objectives.huber_error(huge, zero, 0.5) - objectives.huber_error(big, zero, 0.5)) / 10
    assert slope.item() == pytest.approx(2 * 0.5, rel=1e-2)


def test_timesteps_cover_the_table():
    u = torch.linspace(0, 1, 100_001)[:-1]
    t = objectives.uniform_timesteps(u, 10)
    assert torch.bincount(t).tolist() == pytest.approx([10_000] * 10, abs=1)  # float32 borders
    assert objectives.uniform_timesteps(torch.tensor([1.0]), 10).item() == 9


def test_logit_normal_has_its_median_at_the_mean():
    z = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    t = objectives.logit_normal_timesteps(z, 1000, mean=1.0, std=0.5).float()
    assert t.median().item() == pytest.approx(1000 / (1 + math.exp(-1.0)), abs=5)
    assert objectives.logit_normal_timesteps(z, 1000, mean=0.0, std=1e-3).unique().numel() < 4


def test_offset_noise_shifts_whole_channels(pair):
    noise = pair[0]
    shift = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    moved = objectives.offset_noise(noise, shift, 0.1) - noise
    torch.testing.assert_close(
        moved, (0.1 * shift)[:, :, None, None].expand_as(noise), atol=1e-6, rtol=0
    )


def test_edge_error_sees_edges_and_not_brightness():
    flat, edge = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 1.0
    assert objectives.edge_error(flat + 0.5, flat).item() == 0.0
    assert objectives.edge_error(edge, flat).item() == pytest.approx(1 / 3)  # one of three columns


def test_kl_by_hand():
    shape = (1, 2, 2, 2)
    assert objectives.kl_to_unit(torch.zeros(shape), torch.zeros(shape)).item() == 0.0
    mean, logvar = torch.full(shape, 2.0), torch.full(shape, math.log(3.0))
    expected = 0.5 * (4 + 3 - 1 - math.log(3.0))
    assert objectives.kl_to_unit(mean, logvar).item() == pytest.approx(expected)


def test_kl_between_agrees_with_torch():
    moments = torch.randn(4, 3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    one, other = ((mean, logvar) for mean, logvar in moments.split(2))
    normals = [torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in (one, other)]
    expected = torch.distributions.kl_divergence(*normals).flatten(1).mean(dim=1)
    torch.testing.assert_close(objectives.kl_between(*one, *other), expected)


@pytest.mark.parametrize(
    ("decay", "step", "rate"),
    [
        ("cosine", 0, 0.5),
        ("cosine", 1, 1.0),
        ("cosine", 2, 1.0),
        ("cosine", 7, 0.55),
        ("linear", 7, 0.55),
        ("linear", 11, 0.19),
        ("constant", 11, 1.0),
    ],
)
def test_learning_rate(decay, step, rate):
    recipe = OptimizerRecipe(lr=1.0, warmup=2, decay=decay, final=0.1)
    assert learning_rate(recipe, step, 12) == pytest.approx(rate)
