"""The network as a denoiser: prediction types, timesteps, clipping and half precision."""

import math

import diffusers
import pytest
import torch
from analytic import last
from diffusers_loop import initial_noise, numpy_2_warns, toy_network
from torch import Tensor

from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.samplers.euler import sample_euler
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import SpacingOptions, make_sigmas
from diffgen.types import Conditioning, NoiseConfig, Prediction

SD = NoiseSchedule.from_config(NoiseConfig())
COND = Conditioning(context=torch.zeros(2, 1, 1))
CLEAN = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))


PREDICTIONS: tuple[Prediction, ...] = ("eps", "v", "sample")


class Recorder:
    """A network that always gives the same output and remembers what it was given."""

    def __init__(self, output: Tensor) -> None:
        self.output = output
        self.calls: list[tuple[Tensor, Tensor, Conditioning]] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self.calls.append((x, t, cond))
        return self.output.to(x.dtype)


def perfect_output(prediction: Prediction, sigma: float) -> Tensor:
    """What a network that knows everything says; v is alpha noise - sigma_vp x0."""
    alpha = 1.0 / math.sqrt(1.0 + sigma**2)
    outputs = {"eps": NOISE, "v": alpha * NOISE - alpha * sigma * CLEAN, "sample": CLEAN}
    return outputs[prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.03, 0.8, 14.6])
def test_a_perfect_network_recovers_x0(prediction: Prediction, sigma: float) -> None:
    """float32 x0 + sigma noise holds x0 to 6e-8 sigma."""
    network = Recorder(perfect_output(prediction, sigma))
    denoise = ModelDenoiser(network, SD, prediction)
    denoised = denoise(CLEAN + sigma * NOISE, sigma, COND)
    torch.testing.assert_close(denoised, CLEAN, rtol=0.0, atol=1e-6 * (1.0 + sigma))


@pytest.mark.parity
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("t", [0, 37, 500, 999])
def test_x0_is_that_of_diffusers(prediction: Prediction, t: int) -> None:
    names = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=names[prediction],
        clip_sample=False,
    )
    scheduler.set_timesteps(10)
    expected = scheduler.step(NOISE, t, CLEAN).pred_original_sample
    x = CLEAN * math.hypot(1.0, SD.sigmas[t])
    actual = ModelDenoiser(Recorder(NOISE), SD, prediction).to_denoised(NOISE, x, SD.sigmas[t])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_network_sees_a_unit_variance_state_and_a_timestep_each() -> None:
    network = Recorder(NOISE)
    sigma = SD.t_to_sigma(123.5)
    x = CLEAN + sigma * NOISE
    ModelDenoiser(network, SD, "eps")(x, sigma, COND)
    [(state, t, cond)] = network.calls
    torch.testing.assert_close(state, x / math.sqrt(1.0 + sigma**2))
    assert t.shape == (2,)
    assert t.tolist() == pytest.approx([123.5, 123.5], abs=1e-4)
    assert cond is COND


@pytest.mark.parametrize("t", [0, 1, 500, 998, 999])
def test_whole_timesteps_reach_the_network_exactly(t: int) -> None:
    network = Recorder(NOISE)
    ModelDenoiser(network, SD, "eps")(CLEAN, SD.sigmas[t], COND)
    assert network.calls[0][1].tolist() == [t, t]


def test_noise_levels_outside_the_table_get_the_nearest_timestep() -> None:
    network = Recorder(NOISE)
    denoise = ModelDenoiser(network, SD, "eps")
    for sigma, expected in ((1e-3, 0.0), (100.0, 999.0)):
        denoise(CLEAN, sigma, COND)
        assert network.calls[-1][1].tolist() == [expected, expected]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clipping_bounds_x0(prediction: Prediction) -> None:
    denoise = ModelDenoiser(Recorder(NOISE), SD, prediction, clip=0.5)
    free = ModelDenoiser(Recorder(NOISE), SD, prediction)
    x = 3.0 * CLEAN
    assert torch.equal(denoise(x, 2.0, COND), free(x, 2.0, COND).clamp(-0.5, 0.5))
    assert free(x, 2.0, COND).abs().max() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_the_network_sees_half_precision(dtype: torch.dtype) -> None:
    network = Recorder(NOISE)
    denoise = ModelDenoiser(network, SD, "eps", dtype=dtype)
    denoised = denoise(CLEAN, 1.0, COND)
    state, t, _ = network.calls[0]
    assert state.dtype == dtype
    assert t.dtype == torch.float32  # bf16 has 8 bits: 999 would become 1000
    assert denoised.dtype == torch.float32
    assert denoise.predict(CLEAN, 1.0, COND).dtype == dtype


def test_zero_snr_start_keeps_its_digits() -> None:
    """At sigma 4096 x is nearly all noise, but v-prediction recovers x0 from the v output alone."""
    schedule = NoiseSchedule.from_config(NoiseConfig(zero_snr=True))
    sigma = schedule.sigma_max
    network = Recorder(perfect_output("v", sigma))
    denoised = ModelDenoiser(network, schedule, "v")(CLEAN + sigma * NOISE, sigma, COND)
    torch.testing.assert_close(denoised, CLEAN, rtol=0.0, atol=1e-6)


@numpy_2_warns
@pytest.mark.parity
def test_a_float32_state_beats_a_half_precision_loop() -> None:
    """The same bf16 network: only the state between its evaluations differs."""

    def ours(dtype: torch.dtype) -> Tensor:
        denoise = ModelDenoiser(toy_network(), SD, "eps", dtype=dtype)
        sigmas = make_sigmas("trailing", SD, 50, SpacingOptions())
        x = initial_noise() * sigmas[0]
        return last(sample_euler(lambda x, s: denoise(x, s, COND), x, sigmas, noise=lambda a, b: x))

    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(50)
    network = toy_network()
    x = (initial_noise() * scheduler.init_noise_sigma).bfloat16()
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    exact = ours(torch.float32)
    error, error_of_loop = (
        float((result.float() - exact).norm() / exact.norm())
        for result in (ours(torch.bfloat16), x)
    )
    assert error < 0.005  # 0.0016 measured, against 0.023
    assert error_of_loop > 5 * error
