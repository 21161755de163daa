"""Classifier-free guidance against the formula written out, and its rescaling against diffusers."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from diffgen.diffusion.course import constant_guides
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guidance import Guidance
from diffgen.diffusion.guided import GuidedDenoiser
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.types import Conditioning, NoiseConfig, Prediction

SD = NoiseSchedule.from_config(NoiseConfig())
SIGMA = 1.7


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = 2.0 * draw(2, 4, 8, 8, seed=1)
COND = Conditioning(
    context=draw(2, 3, 5, seed=2),
    pooled=draw(2, 6, seed=3),
    time_ids=draw(2, 6, seed=4),
    concat=draw(2, 5, 8, 8, seed=5),
    guidance=draw(2, seed=8),
)
UNCOND = Conditioning(
    context=draw(2, 3, 5, seed=6),
    pooled=draw(2, 6, seed=7),
    time_ids=COND.time_ids,
    concat=COND.concat,
    guidance=COND.guidance,
)


class Network:
    """Every field of the conditioning changes every image's output; calls are counted."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        self.batches.append(x.shape[0])
        assert len(t) == len(cond.context) == len(x)
        push = cond.context.flatten(1).sum(1)
        for extra in (cond.pooled, cond.time_ids, cond.concat, cond.guidance):
            if extra is not None:
                push = push + extra.reshape(len(x), -1).square().mean(1)
        push = push.reshape(-1, 1, 1, 1)
        return torch.tanh(x + 0.2 * push) + 0.3 * torch.sin(push * x)


def guided(
    scale: float, prediction: Prediction = "eps", uncond: Conditioning | None = UNCOND, **options
) -> tuple[GuidedDenoiser, Network]:
    network = Network()
    model = ModelDenoiser(network, SD, prediction)
    return GuidedDenoiser(
        model, constant_guides(COND, uncond), Guidance.constant(scale, **options)
    ), network


def outputs(prediction: Prediction) -> tuple[ModelDenoiser, Tensor, Tensor]:
    """The model, and its raw outputs for both prompts, each from a call of its own."""
    model = ModelDenoiser(Network(), SD, prediction)
    return model, model.predict(X, SIGMA, UNCOND), model.predict(X, SIGMA, COND)


@pytest.mark.parametrize("prediction", ["eps", "v", "sample"])
@pytest.mark.parametrize("scale", [1.5, 7.5])
def test_guidance_extrapolates_from_unconditional(prediction: Prediction, scale: float) -> None:
    denoise, network = guided(scale, prediction)
    model, uncond, cond = outputs(prediction)
    expected = model.to_denoised(uncond + scale * (cond - uncond), X, SIGMA)
    torch.testing.assert_close(denoise(X, SIGMA), expected)
    assert network.batches == [4]  # two prompts, both halves in one call


@pytest.mark.parametrize("options", [{}, {"rescale": 0.7}, {"interval": (0.5, 3.0)}])
@pytest.mark.parametrize("sigma", [0.4, SIGMA])
def test_each_picture_may_have_a_scale_of_its_own(sigma: float, options: Any) -> None:
    """To the bit what a batch of its scale gives, by one call."""
    expected = [guided(scale, **options)[0](X, sigma)[i] for i, scale in enumerate((3.0, 7.5))]
    network = Network()
    first, second = constant_guides(COND, UNCOND)
    denoise = GuidedDenoiser(
        ModelDenoiser(network, SD, "eps"),
        [first, replace(second, scale=7.5)],
        Guidance.constant(3.0, **options),
    )
    assert torch.equal(denoise(X, sigma), torch.stack(expected))
    assert network.batches == [2 if "interval" in options and sigma == 0.4 else 4]
    assert not torch.equal(*(guided(scale)[0](X, sigma)[1] for scale in (3.0, 7.5)))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_without_guidance_only_the_conditional_half_is_computed(scale: float) -> None:
    denoise, network = guided(scale)
    model, _, cond = outputs("eps")
    assert torch.equal(denoise(X, SIGMA), model.to_denoised(cond, X, SIGMA))
    assert network.batches == [2]


def test_without_a_negative_prompt_only_the_conditional_half_is_computed() -> None:
    denoise, network = guided(7.5, uncond=None)
    model, _, cond = outputs("eps")
    assert torch.equal(denoise(X, SIGMA), model.to_denoised(cond, X, SIGMA))
    assert network.batches == [2]


@pytest.mark.parametrize(
    ("sigma", "batch"), [(0.5, 2), (0.51, 4), (1.7, 4), (3.0, 4), (3.01, 2), (14.6, 2)]
)
def test_the_interval_is_open_below_and_closed_above(sigma: float, batch: int) -> None:
    denoise, network = guided(7.5, interval=(0.5, 3.0))
    everywhere, _ = guided(7.5)
    nowhere, _ = guided(1.0)
    expected = everywhere if batch == 4 else nowhere
    assert torch.equal(denoise(X, sigma), expected(X, sigma))
    assert network.batches == [batch]


def test_the_default_interval_is_everywhere() -> None:
    denoise, network = guided(7.5)
    for sigma in (1e-3, 4096.0, 1e9):
        denoise(X, sigma)
    assert network.batches == [4, 4, 4]
    assert math.isfinite(float(denoise(X, 4096.0).sum()))


@pytest.mark.parity
@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
def test_rescaling_is_that_of_diffusers(prediction: Prediction, rescale: float) -> None:
    denoise, _ = guided(7.5, prediction, rescale=rescale)
    model, uncond, cond = outputs(prediction)
    combined = rescale_noise_cfg(uncond + 7.5 * (cond - uncond), cond, guidance_rescale=rescale)
    expected = model.to_denoised(combined, X, SIGMA)
    torch.testing.assert_close(denoise(X, SIGMA), expected)


def test_full_rescaling_gives_the_conditional_spread_per_image() -> None:
    """arXiv:2305.08891, equation 15 with phi = 1; eps is (x - denoised) / sigma."""
    denoise, _ = guided(7.5, rescale=1.0)
    _, _, cond = outputs("eps")
    eps = (X - denoise(X, SIGMA)) / SIGMA
    torch.testing.assert_close(eps.std(dim=(1, 2, 3)), cond.std(dim=(1, 2, 3)))


def test_an_image_does_not_see_its_neighbour() -> None:
    denoise, _ = guided(7.5, rescale=0.7)
    together = denoise(X, SIGMA)
    model = ModelDenoiser(Network(), SD, "eps")
    for i in range(2):
        cond, uncond = (c.map(lambda tensor, i=i: tensor[i : i + 1]) for c in (COND, UNCOND))
        alone = GuidedDenoiser(
            model, constant_guides(cond, uncond), Guidance.constant(7.5, rescale=0.7)
        )(X[i : i + 1], SIGMA)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_guidance_works_on_the_network_output_not_on_clipped_x0() -> None:
    """Clipping both halves first would lose what guidance is to amplify."""
    network = Network()
    model = ModelDenoiser(network, SD, "eps", clip=0.5)
    denoise = GuidedDenoiser(model, constant_guides(COND, UNCOND), Guidance.constant(7.5))
    free, _ = guided(7.5)
    assert torch.equal(denoise(X, SIGMA), free(X, SIGMA).clamp(-0.5, 0.5))


def test_every_field_reaches_the_network() -> None:
    base, _ = guided(7.5)
    for name in ("context", "pooled", "time_ids", "concat", "guidance"):
        changed = replace(COND, **{name: getattr(COND, name) + 1.0})
        other = GuidedDenoiser(
            ModelDenoiser(Network(), SD, "eps"),
            constant_guides(changed, UNCOND),
            Guidance.constant(7.5),
        )
        assert not torch.equal(other(X, SIGMA), base(X, SIGMA)), name


def test_fields_may_be_absent_in_both() -> None:
    cond, uncond = (Conditioning(context=c.context) for c in (COND, UNCOND))
    denoise = GuidedDenoiser(
        ModelDenoiser(Network(), SD, "eps"), constant_guides(cond, uncond), Guidance.constant(2.0)
    )
    model = ModelDenoiser(Network(), SD, "eps")
    a, b = model.predict(X, SIGMA, uncond), model.predict(X, SIGMA, cond)
    torch.testing.assert_close(denoise(X, SIGMA), model.to_denoised(2 * b - a, X, SIGMA))
