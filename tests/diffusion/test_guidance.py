"""The rules of guidance against their papers in double precision, and against diffusers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from test_guided import COND, SD, SIGMA, UNCOND, Network, X, draw, outputs
from torch import Tensor

from diffgen.diffusion.course import constant_guides
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import GUIDANCE, Guidance, scales_of_steps
from diffgen.diffusion.guided import APG_ELEMENTS, GuidedDenoiser
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.errors import UsageError
from diffgen.types import Conditioning, GuidanceName, Prediction, Stretch

SIGMAS = (14.6, 7.3, 3.1, 1.2, 0.4, 0.0)


def denoiser(guidance: Guidance, prediction: Prediction = "eps") -> tuple[GuidedDenoiser, Network]:
    network = Network()
    model = ModelDenoiser(network, SD, prediction)
    return GuidedDenoiser(model, constant_guides(COND, UNCOND), guidance), network


def scales(name: GuidanceName, *stretches: Stretch, sampler="ddim", **options: float):
    return scales_of_steps(name, stretches, SIGMAS, sampler=sampler, options=options)


def test_the_registry_has_a_row_for_each_rule() -> None:
    assert set(GUIDANCE) == {*get_args(GuidanceName), "pag"}
    for name, rule in GUIDANCE.items():
        assert rule.name == name
        assert rule.paper.startswith("arXiv:")
        assert rule.equation
    options = {key: value for rule in GUIDANCE.values() for key, value in rule.options.items()}
    assert {key: getattr(Guidance(scales=()), key) for key in options} == options


def test_rules_cost_what_they_promise() -> None:
    """Rows that the network sees for each picture, in one call."""
    for name, rule in GUIDANCE.items():
        options = {"pag": 3.0} if name == "pag" else {"name": name}
        denoise, network = denoiser(Guidance(scales=((-1.0, 2.0),), **options))
        denoise(X, SIGMA)
        assert network.batches == [rule.evaluations * len(X)]


# CFG++ (arXiv:2406.08070)


def ddim_plus_plus(x: Tensor, scale: float, prediction: Prediction, eta: float, noise) -> Tensor:
    """Algorithm 2 in double precision, in variance-preserving terms; eta as in DDIM's equation 16."""
    network = Network()
    state = (x / math.hypot(1.0, SIGMAS[0])).double()
    for step, (sigma, after) in enumerate(pairwise(SIGMAS)):
        a, b = (1.0 / (1.0 + s * s) for s in (sigma, after))
        t = torch.full((len(x),), SD.sigma_to_t(sigma))
        eps = []
        for cond in (UNCOND, COND):
            out = network(state.float(), t, cond).double()
            eps.append(out if prediction == "eps" else a**0.5 * out + (1 - a) ** 0.5 * state)
        guided = eps[0] + scale * (eps[1] - eps[0])
        x0 = (state - (1 - a) ** 0.5 * guided) / a**0.5
        up = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        state = b**0.5 * x0 + (1 - b - up * up) ** 0.5 * eps[0] + up * noise[step].double()
    return state


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(
    ("sampler", "eta"), [("ddim", 0.0), ("ddim", 0.5), ("euler_a", 1.0), ("ddpm", 1.0)]
)
def test_cfg_plus_plus_is_its_algorithm(sampler, eta, scale: float, prediction: Prediction) -> None:
    noise = [draw(*X.shape, seed=30 + i) for i in range(len(SIGMAS))]
    x = X * SIGMAS[0]
    given = {} if sampler == "ddpm" else {"eta": eta}
    guidance = Guidance(
        scales=scales("cfg++", Stretch(scale), sampler=sampler, **given), name="cfg++"
    )
    denoise, _ = denoiser(guidance, prediction)
    drawn = iter(noise)
    steps = SAMPLERS[sampler].fn(denoise, x, SIGMAS, noise=lambda a, b: next(drawn), **given)
    *_, (_, result, _) = steps
    # A step without noise, the last, takes none from the list.
    expected = ddim_plus_plus(x, scale, prediction, eta, noise)
    assert (result - expected).norm() <= 2e-5 * expected.norm()


def test_euler_and_ddim_are_one_sampler_for_cfg_plus_plus() -> None:
    assert scales("cfg++", Stretch(0.6)) == scales("cfg++", Stretch(0.6), sampler="euler")


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (
            "dpmpp_2m",
            {},
            "cfg++ is defined for ddim, euler, euler_a, ddpm without churn, not dpmpp_2m",
        ),
        ("euler", {"s_churn": 1.0}, "without churn"),
    ],
)
def test_cfg_plus_plus_is_refused_where_it_is_not_defined(sampler, options, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        scales("cfg++", Stretch(0.6), sampler=sampler, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("scale", [7.5, -0.1, math.nan])
def test_cfg_plus_plus_takes_scales_up_to_1(scale: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        scales("cfg++", Stretch(scale))


# Scales by step


def test_a_schedule_gives_each_step_its_scale() -> None:
    given = scales("cfg", Stretch(7.0, 0.0, 0.4), Stretch(3.0, 0.6, 1.0))
    assert given == ((3.1, 7.0), (1.2, 1.0), (-1.0, 3.0))
    guidance = Guidance(scales=given)
    assert [guidance.scale(sigma) for sigma in SIGMAS[:-1]] == [7.0, 7.0, 1.0, 3.0, 3.0]
    assert guidance.scale(5.0) == 7.0  # a midpoint belongs to its step


@pytest.mark.parametrize("steps", [1, 3, 10, 30])
def test_shares_of_the_steps_are_rounded_as_shares_of_edited_prompts(steps: int) -> None:
    sigmas = [float(steps - i) for i in range(steps + 1)]
    given = Guidance(
        scales=scales_of_steps("cfg", [Stretch(7.0, 0.0, 0.6)], sigmas, sampler="ddim", options={})
    )
    guided = sum(given.scale(sigma) == 7.0 for sigma in sigmas[:-1])
    assert guided == math.ceil(steps * 0.6 - 1e-9)


def test_steps_without_guidance_cost_half() -> None:
    denoise, network = denoiser(Guidance(scales=scales("cfg", Stretch(7.0, 0.0, 0.6))))
    for sigma in SIGMAS[:-1]:
        denoise(X, sigma)
    assert network.batches == [4, 4, 4, 2, 2]


# APG (arXiv:2410.02416)


@pytest.mark.parity
@pytest.mark.parametrize("prediction", ["eps", "v", "sample"])
@pytest.mark.parametrize("momentum", [0.0, -0.5])
@pytest.mark.parametrize(("norm", "parallel"), [(15.0, 0.0), (400.0, 0.0), (15.0, 0.3), (1e6, 1.0)])
def test_apg_is_that_of_diffusers(prediction: Prediction, momentum, norm, parallel) -> None:
    """On x0 estimates, as in the paper; the momentum goes on from step to step."""
    guidance = Guidance(
        scales=((-1.0, 6.0),),
        name="apg",
        apg_momentum=momentum,
        apg_norm=norm,
        apg_parallel=parallel,
    )
    denoise, _ = denoiser(guidance, prediction)
    buffer = MomentumBuffer(momentum)
    model = ModelDenoiser(Network(), SD, prediction)
    for sigma in (7.3, 3.1, 1.2):
        cond, uncond = (model(X, sigma, told).double() for told in (COND, UNCOND))
        expected = normalized_guidance(
            cond,
            uncond,
            5.0,  # the paper's w - 1
            momentum_buffer=buffer,
            eta=parallel,
            norm_threshold=norm * math.sqrt(X[0].numel() / APG_ELEMENTS),
            use_original_formulation=True,
        )
        torch.testing.assert_close(denoise(X, sigma).double(), expected, rtol=1e-3, atol=2e-4)


def test_apg_without_any_of_its_means_is_plain_guidance() -> None:
    free = Guidance(
        scales=((-1.0, 6.0),), name="apg", apg_momentum=0.0, apg_norm=1e6, apg_parallel=1.0
    )
    plain, _ = denoiser(Guidance.constant(6.0))
    torch.testing.assert_close(denoiser(free)[0](X, SIGMA), plain(X, SIGMA), rtol=1e-4, atol=1e-4)


def test_each_run_of_apg_begins_without_momentum() -> None:
    guidance = Guidance(scales=((-1.0, 6.0),), name="apg", apg_momentum=-0.7)
    first, second = denoiser(guidance)[0], denoiser(guidance)[0]
    begin = first(X, 3.0)
    assert not torch.equal(first(X, 3.0), begin)
    assert torch.equal(second(X, 3.0), begin)


# PAG (arXiv:2403.17377)


class Attentive(Network):
    """Rows marked as perturbed give another output."""

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        out = super().__call__(x, t, replace(cond, perturbed=None))
        if cond.perturbed is None:
            return out
        return torch.where(cond.perturbed[:, None, None, None], 0.8 * out + 0.1, out)


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_pag_adds_the_way_from_the_perturbed_output(scale: float) -> None:
    """Equation 15 beside CFG, as in diffusers' pipelines."""
    network = Attentive()
    guidance = Guidance(scales=((-1.0, scale),), pag=3.0)
    guides = constant_guides(COND, UNCOND)
    denoise = GuidedDenoiser(ModelDenoiser(network, SD, "eps"), guides, guidance)
    model, uncond, cond = outputs("eps")
    expected = uncond + scale * (cond - uncond) + 3.0 * (cond - (0.8 * cond + 0.1))
    torch.testing.assert_close(
        denoise(X, SIGMA), model.to_denoised(expected, X, SIGMA), rtol=1e-4, atol=1e-4
    )
    assert network.batches == [6 if scale > 1.0 else 4]


def test_pag_keeps_to_the_interval() -> None:
    guidance = Guidance(scales=((-1.0, 5.0),), pag=3.0, interval=(1.0, 4.0))
    denoise, network = denoiser(guidance)
    for sigma in (0.5, 2.0, 9.0):
        denoise(X, sigma)
    assert network.batches == [2, 6, 2]
