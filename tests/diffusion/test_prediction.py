import pytest
import torch

from diffgen.diffusion.prediction import (
    add_noise,
    eps_from_v,
    noise_in,
    predict_x0,
    regression_target,
    state_scale,
    v_from_eps,
    x0_weights,
)

PREDICTIONS = ("eps", "v", "sample")
ALPHA_BAR = torch.tensor([0.999, 0.5, 0.004])


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, 5, generator=generator)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_both_spaces_find_the_x0_that_the_state_was_made_from(pair, prediction):
    x0, noise = pair
    state = add_noise(x0, noise, ALPHA_BAR)
    output = regression_target(x0, noise, ALPHA_BAR, prediction)
    torch.testing.assert_close(predict_x0(output, state, ALPHA_BAR, prediction), x0)
    for i, alpha_bar in enumerate(ALPHA_BAR.tolist()):
        sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
        x = x0[i] + sigma * noise[i]
        torch.testing.assert_close(x / state_scale(sigma), state[i])
        keep, gain = x0_weights(prediction, sigma)
        torch.testing.assert_close(keep * x + gain * output[i], x0[i], atol=2e-5, rtol=1e-5)


def test_the_noise_is_what_x0_leaves(pair):
    x0, noise = pair
    found = noise_in(add_noise(x0, noise, ALPHA_BAR), x0, ALPHA_BAR)
    torch.testing.assert_close(found, noise, atol=1e-5, rtol=1e-4)


def test_eps_and_v_of_a_state_are_those_of_training(pair):
    x0, noise = pair
    wanted = regression_target(x0, noise, ALPHA_BAR, "v")
    for i, alpha_bar in enumerate(ALPHA_BAR.tolist()):
        sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
        x = x0[i] + sigma * noise[i]
        v = v_from_eps(noise[i], x, sigma)
        torch.testing.assert_close(v, wanted[i], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(eps_from_v(v, x, sigma), noise[i], atol=1e-5, rtol=1e-4)


def test_predictions_are_clipped_where_asked(pair):
    x0, noise = pair
    state = add_noise(x0, noise, ALPHA_BAR)
    clipped = predict_x0(noise, state, ALPHA_BAR, "eps", clip=0.5)
    torch.testing.assert_close(clipped, x0.clamp(-0.5, 0.5))
