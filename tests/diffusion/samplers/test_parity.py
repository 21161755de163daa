"""Every sampler that diffusers has, against its scheduler, from the same seed on the same network.

Where both do the same arithmetic they agree to 1e-6; what remains is the float32 tables of
diffusers, worst at the first table entry (1.3e-5 of sigma). The known differences are named where
they are worked around.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise, product

import diffusers
import pytest
import torch
from analytic import last
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers_loop import (
    SCALED_LINEAR,
    SEED,
    SHAPE,
    generator,
    initial_noise,
    numpy_2_warns,
    relative_error,
    run_scheduler,
    toy_network,
)
from torch import Tensor

from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.samplers.dpmpp import sample_dpmpp_3m_sde, sample_dpmpp_sde
from diffgen.diffusion.samplers.multistep import sample_ipndm
from diffgen.diffusion.samplers.unipc import sample_unipc
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.settings.sampling import Sampling
from diffgen.types import Denoiser, NoiseConfig, Prediction, SamplerName, SpacingName

pytestmark = [pytest.mark.parity, numpy_2_warns]

TOLERANCE = 5e-5
PREDICTIONS: dict[Prediction, str] = {"eps": "epsilon", "v": "v_prediction", "sample": "sample"}
STEPS = (1, 2, 7, 20)
CPU = torch.device("cpu")


class DDIM(diffusers.DDIMScheduler):
    """DDIM that steps from each timestep of its list to the next.

    The original always steps by T // n, which is another timestep than the next one where n does
    not divide T, and with linspace nearly always: it then says sigma(t) to a network whose input
    has another noise level. The step is computed as T // num_inference_steps, hence the fraction.
    """

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> SchedulerOutput:
        following = [*self.timesteps.tolist(), -1]
        gap = int(timestep) - following[following.index(int(timestep)) + 1]
        self.num_inference_steps = Fraction(self.config.num_train_timesteps, gap)
        return super().step(model_output, timestep, sample, eta=eta, generator=generator)


class PNDM(diffusers.PNDMScheduler):
    """PNDM with the same correction; its second call repeats the first step from its end."""

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> SchedulerOutput:
        following = [*dict.fromkeys(self.timesteps.tolist()), -1]
        index = following.index(int(timestep)) - (1 if self.counter == 1 else 0)
        gap = following[index] - following[index + 1]
        self.num_inference_steps = Fraction(self.config.num_train_timesteps, gap)
        return super().step(model_output, timestep, sample)


NO_CLIP = {"clip_sample": False}
SCHEDULERS: dict[SamplerName, Callable[..., diffusers.SchedulerMixin]] = {
    "ddpm": partial(diffusers.DDPMScheduler, **NO_CLIP),
    "ddim": partial(DDIM, set_alpha_to_one=False, **NO_CLIP),
    "plms": partial(PNDM, skip_prk_steps=True),
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpm2": diffusers.KDPM2DiscreteScheduler,
    "dpm2_a": diffusers.KDPM2AncestralDiscreteScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_2m_sde": partial(
        diffusers.DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"
    ),
    "deis": diffusers.DEISMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "sa_solver": diffusers.SASolverScheduler,
    "lcm": partial(diffusers.LCMScheduler, **NO_CLIP),
    "tcd": partial(diffusers.TCDScheduler, **NO_CLIP),
}
OWN_TIMESTEPS = ("lcm", "tcd")


def oracle(
    name: SamplerName,
    steps: int,
    spacing: SpacingName,
    prediction: Prediction,
    *,
    step_options: dict[str, float] | None = None,
    **settings: object,
) -> Tensor:
    """The result of diffusers' own scheduler."""
    if name not in OWN_TIMESTEPS:
        settings = {"timestep_spacing": spacing, "steps_offset": 1, **settings}
    scheduler = SCHEDULERS[name](
        prediction_type=PREDICTIONS[prediction], **SCALED_LINEAR, **settings
    )
    scheduler.set_timesteps(steps)
    return run_scheduler(scheduler, **(step_options or {}))


def ours(
    name: SamplerName,
    steps: int,
    spacing: SpacingName | None,
    prediction: Prediction,
    *,
    zero_snr: bool = False,
    final_alpha_one: bool = False,
    offset: int = 1,
    **options: float,
) -> Tensor:
    """The result of our plan; LCM and TCD bring their spacing themselves."""
    config = NoiseConfig(
        steps_offset=offset,
        prediction=prediction,
        final_alpha_one=final_alpha_one,
        zero_snr=zero_snr,
    )
    schedule = NoiseSchedule.from_config(config)
    settings = Sampling(
        sampler=name,
        steps=steps,
        schedule=None if name in OWN_TIMESTEPS else spacing,
        **options,
    )
    plan = SamplingPlan.make(settings, config, schedule)
    return plan.run(denoiser(schedule, prediction), [SEED], SHAPE, CPU)


def denoiser(schedule: NoiseSchedule, prediction: Prediction = "eps") -> Denoiser:
    model = ModelDenoiser(toy_network(), schedule, prediction)
    return lambda x, sigma: model(x, sigma, None)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_same_seed_same_latents(
    name: SamplerName, prediction: Prediction, spacing: SpacingName
) -> None:
    for steps in STEPS:
        expected = oracle(name, steps, spacing, prediction)
        assert relative_error(ours(name, steps, spacing, prediction), expected) < TOLERANCE, steps


@pytest.mark.parametrize("name", ["ddim", "plms"])
def test_models_that_end_at_alpha_one(name: SamplerName) -> None:
    for steps, spacing in product(STEPS, ("leading", "trailing")):
        expected = oracle(name, steps, spacing, "eps", set_alpha_to_one=True)
        actual = ours(name, steps, spacing, "eps", final_alpha_one=True)
        assert relative_error(actual, expected) < TOLERANCE, (steps, spacing)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m", "unipc"])
def test_models_without_a_steps_offset(name: SamplerName) -> None:
    for steps in STEPS:
        expected = oracle(name, steps, "leading", "eps", steps_offset=0)
        actual = ours(name, steps, "leading", "eps", offset=0)
        assert relative_error(actual, expected) < TOLERANCE, steps


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "dpmpp_2m", "unipc"])
def test_models_that_predict_the_sample(name: SamplerName) -> None:
    for steps in STEPS:
        expected = oracle(name, steps, "leading", "sample")
        assert relative_error(ours(name, steps, "leading", "sample"), expected) < TOLERANCE, steps


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ddim", "tcd"])
def test_eta(name: SamplerName, eta: float) -> None:
    for steps in (2, 4, 10):
        expected = oracle(name, steps, "leading", "eps", step_options={"eta": eta})
        actual = ours(name, steps, "leading", "eps", eta=eta)
        assert relative_error(actual, expected) < TOLERANCE, steps


@pytest.mark.parametrize("name", ["euler", "heun", "dpm2", "dpm2_a", "lms"])
@pytest.mark.parametrize(
    ("schedule", "setting"),
    [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")],
)
def test_karras_and_exponential(name: SamplerName, schedule: SpacingName, setting: str) -> None:
    """These put noise levels between whole timesteps, which both sides tell the network; only
    KDPM2AncestralDiscreteScheduler rounds them for karras.
    """
    tolerance = 5e-4 if (name, schedule) == ("dpm2_a", "karras") else TOLERANCE
    for steps in (2, 7, 20):
        expected = oracle(name, steps, "linspace", "eps", **{setting: True})
        assert relative_error(ours(name, steps, schedule, "eps"), expected) < tolerance, steps


@pytest.mark.parametrize("churn", [2.0, 100.0])
def test_euler_churn(churn: float) -> None:
    """diffusers raises the noise level inside its step, after the network has been asked at the
    level before. Algorithm 2 asks at the raised level: the noise is drawn ahead to get there.
    """
    steps = 10
    schedule = NoiseSchedule.from_config(NoiseConfig())
    scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="trailing", **SCALED_LINEAR)
    scheduler.set_timesteps(steps)
    network, source, ahead = toy_network(), generator(), generator()
    for stream in (source, ahead):
        x = torch.randn((1, *SHAPE), generator=stream) * scheduler.init_noise_sigma
    gamma = min(churn / steps, 2**0.5 - 1)
    for t, sigma in zip(scheduler.timesteps, fixed_levels(scheduler), strict=False):
        raised = sigma * (1 + gamma)
        noise = torch.randn((1, *SHAPE), generator=ahead)
        x_raised = x + noise * (raised**2 - sigma**2) ** 0.5
        output = network(x_raised / (1 + raised**2) ** 0.5, schedule.sigma_to_t(raised))
        scheduler.is_scale_input_called = True
        x = scheduler.step(output, t, x, s_churn=churn, generator=source).prev_sample
    actual = ours("euler", steps, "trailing", "eps", s_churn=churn)
    assert relative_error(actual, x) < TOLERANCE


# The multistep schedulers of diffusers take alpha_bar = 2^-24 for 0, as ours. DDPM, DDIM, LCM and
# TCD take 0 itself, where x keeps no trace of x0; ours keeps 1 / 4096 of it. Euler subtracts 4096
# noise from 4096 noise in float32, which costs it four digits.
ZERO_SNR: dict[SamplerName, float] = {
    "ddpm": 1e-3,
    "ddim": 1e-3,
    "euler": 4e-4,
    "euler_a": 4e-4,
    "dpmpp_2m": TOLERANCE,
    "dpmpp_2m_sde": TOLERANCE,
    "unipc": TOLERANCE,
    "lcm": 1e-3,
    "tcd": 1e-3,
}


@pytest.mark.parametrize("name", ZERO_SNR)
def test_zero_terminal_snr(name: SamplerName) -> None:
    for steps in STEPS:
        expected = oracle(name, steps, "trailing", "v", rescale_betas_zero_snr=True)
        actual = ours(name, steps, "trailing", "v", zero_snr=True)
        assert relative_error(actual, expected) < ZERO_SNR[name], steps


def fixed_levels(scheduler: diffusers.SchedulerMixin) -> list[float]:
    return [float(sigma) for sigma in scheduler.sigmas]


def vp_start(sigmas: Sequence[float]) -> Tensor:
    return initial_noise() * (1.0 + sigmas[0] ** 2) ** 0.5


@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_variants_above_sigma_0(solver_type: str, order: int) -> None:
    """diffusers' bh1 returns NaN where the run goes to 0, so both end at the first table entry."""
    schedule = NoiseSchedule.from_config(NoiseConfig())
    for steps in STEPS:
        scheduler = diffusers.UniPCMultistepScheduler(
            solver_type=solver_type,
            solver_order=order,
            final_sigmas_type="sigma_min",
            timestep_spacing="trailing",
            **SCALED_LINEAR,
        )
        scheduler.set_timesteps(steps)
        expected = run_scheduler(scheduler)
        sigmas = fixed_levels(scheduler)
        x = last(
            sample_unipc(
                denoiser(schedule),
                vp_start(sigmas),
                sigmas,
                noise=None,
                variant=solver_type,
                order=order,
            )
        )
        actual = x / (1.0 + sigmas[-1] ** 2) ** 0.5
        assert relative_error(actual, expected) < TOLERANCE, steps


@pytest.mark.parametrize("steps", STEPS)
def test_dpmpp_3m_sde_without_noise_is_dpm_solver_pp_3m(steps: int) -> None:
    """diffusers' stochastic third-order solver has a sign error in its second-derivative term
    (- 0.5 for + 0.5), so the deterministic one is the oracle, without its lower orders at the end.
    """
    schedule = NoiseSchedule.from_config(NoiseConfig())
    scheduler = diffusers.DPMSolverMultistepScheduler(
        solver_order=3,
        solver_type="heun",  # for its second step, where it has no third estimate yet
        lower_order_final=False,
        final_sigmas_type="sigma_min",
        timestep_spacing="trailing",
        **SCALED_LINEAR,
    )
    scheduler.set_timesteps(steps)
    sigmas = fixed_levels(scheduler)
    steps_made = sample_dpmpp_3m_sde(
        denoiser(schedule), vp_start(sigmas), sigmas, noise=None, eta=0.0
    )
    x = last(steps_made)
    actual = x / (1.0 + sigmas[-1] ** 2) ** 0.5
    assert relative_error(actual, run_scheduler(scheduler)) < TOLERANCE


def test_ipndm() -> None:
    """IPNDMScheduler has a noise schedule of its own; it is given ours, in its VP form."""
    schedule = NoiseSchedule.from_config(NoiseConfig())
    for steps in STEPS:
        timesteps = [999 - 45 * i for i in range(steps)]
        sigmas = [*(schedule.sigmas[t] for t in timesteps), 0.0]
        scheduler = diffusers.IPNDMScheduler()
        scheduler.set_timesteps(steps)
        alpha_bars = torch.tensor([1.0 / (1.0 + s * s) for s in sigmas], dtype=torch.float64)
        scheduler.alphas = alpha_bars.sqrt().float()
        scheduler.betas = (1.0 - alpha_bars).sqrt().float()
        network, x = toy_network(), initial_noise()
        for t, index in zip(timesteps, scheduler.timesteps, strict=True):
            # Its model output is the slope in the angle, v; ours is eps.
            i = scheduler.step_index or 0
            output = network(x, t)
            v = (output - scheduler.betas[i] * x) / scheduler.alphas[i]
            x = scheduler.step(v, index, x).prev_sample
        actual = last(sample_ipndm(denoiser(schedule), vp_start(sigmas), sigmas, noise=None))
        assert relative_error(actual, x) < TOLERANCE, steps


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_dpmpp_sde(spacing: SpacingName, prediction: Prediction) -> None:
    """torchsde's Brownian tree is replaced by draws that both sides take in the same order."""
    schedule = NoiseSchedule.from_config(NoiseConfig(prediction=prediction))
    for steps in STEPS:
        scheduler = diffusers.DPMSolverSDEScheduler(
            timestep_spacing=spacing,
            steps_offset=1,
            prediction_type=PREDICTIONS[prediction],
            **SCALED_LINEAR,
        )
        scheduler.set_timesteps(steps)
        scheduler.noise_sampler = draws()
        expected = run_scheduler(scheduler)
        levels = list(dict.fromkeys(fixed_levels(scheduler)))
        x = initial_noise() * float(scheduler.init_noise_sigma)
        actual = last(sample_dpmpp_sde(denoiser(schedule, prediction), x, levels, noise=draws()))
        assert relative_error(actual, expected) < TOLERANCE, steps


def draws() -> Callable[..., Tensor]:
    source = torch.Generator().manual_seed(77)
    return lambda sigma, sigma_next: torch.randn((1, *SHAPE), generator=source)


def test_the_corrected_oracles_are_the_originals_where_those_are_right() -> None:
    """Leading timesteps are T // n apart, so there the originals do step to the next."""
    for original, corrected in (
        (diffusers.DDIMScheduler(set_alpha_to_one=False, **NO_CLIP, **SCALED_LINEAR), DDIM),
        (diffusers.PNDMScheduler(skip_prk_steps=True, **SCALED_LINEAR), PNDM),
    ):
        for steps in STEPS:
            original.set_timesteps(steps)
            ours = corrected.from_config(original.config)
            ours.set_timesteps(steps)
            assert torch.equal(run_scheduler(original), run_scheduler(ours))


def test_the_originals_are_wrong_where_steps_do_not_divide() -> None:
    """Why the oracles are corrected. If this fails, diffusers has been mended: use it as it is."""
    scheduler = diffusers.DDIMScheduler(
        timestep_spacing="trailing", set_alpha_to_one=False, **NO_CLIP, **SCALED_LINEAR
    )
    scheduler.set_timesteps(7)
    gaps = {a - b for a, b in pairwise(scheduler.timesteps.tolist())}
    assert gaps == {142, 143}
    assert relative_error(ours("ddim", 7, "trailing", "eps"), run_scheduler(scheduler)) > 1e-3
