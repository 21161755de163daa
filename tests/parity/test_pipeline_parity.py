"""What the pipelines do around the sampler: guidance, negative prompts, batches, sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pipeline_oracle import (
    PROMPT,
    SCHEDULERS,
    Pair,
    diffusers_pictures,
    numpy_2_warns,
    our_pictures,
    psnr,
)
from tiny_models import TinyModel

from diffgen import Engine, GenerateRequest
from diffgen.engine.plan import GeneratePlan, Picture

pytestmark = [pytest.mark.parity, numpy_2_warns]

STEPS = 4
LEAST_DB = 67.0  # as for the samplers
FAMILIES = pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])


@pytest.fixture
def pair(family: str, request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(f"{family}_pair")
    return found


@FAMILIES
def test_the_checkpoint_decides_the_sampler(pair: Pair) -> None:
    (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS)
    (actual,) = our_pictures(pair.engine, steps=STEPS)
    assert psnr(actual, expected) >= LEAST_DB


@FAMILIES
def test_guidance_rescale(pair: Pair) -> None:
    (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS, guidance_rescale=0.7)
    (actual,) = our_pictures(pair.engine, steps=STEPS, guidance_rescale=0.7)
    (plain,) = our_pictures(pair.engine, steps=STEPS)
    assert psnr(actual, expected) >= LEAST_DB
    assert psnr(actual, plain) < 40.0


@FAMILIES
def test_no_guidance(pair: Pair) -> None:
    (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS, guidance_scale=1.0)
    (actual,) = our_pictures(pair.engine, steps=STEPS, guidance_scale=1.0)
    assert psnr(actual, expected) >= LEAST_DB


@FAMILIES
@pytest.mark.parametrize("negative", [None, ""])
def test_absent_and_empty_negative_prompt(pair: Pair, negative: str | None) -> None:
    (expected,) = diffusers_pictures(
        pair.pipeline, num_inference_steps=STEPS, negative_prompt=negative
    )
    (actual,) = our_pictures(pair.engine, steps=STEPS, negative=negative)
    assert psnr(actual, expected) >= LEAST_DB


def test_sdxl_tells_an_absent_negative_prompt_from_an_empty_one(sdxl_pair: Pair) -> None:
    absent, empty = (our_pictures(sdxl_pair.engine, steps=1, negative=n)[0] for n in (None, ""))
    assert psnr(absent, empty) < 40.0


@FAMILIES
def test_a_batch_with_a_generator_each(pair: Pair) -> None:
    euler_a = SCHEDULERS["euler_a"].make(pair.pipeline.scheduler.config)
    expected = diffusers_pictures(
        pair.pipeline, scheduler=euler_a, seeds=(11, 12, 13), num_inference_steps=STEPS
    )
    actual = our_pictures(pair.engine, steps=STEPS, sampler="euler_a", count=3, batch_size=3)
    assert len(actual) == 3
    assert all(psnr(a, e) >= LEAST_DB for a, e in zip(actual, expected, strict=True))


@FAMILIES
def test_a_picture_that_is_not_square(pair: Pair) -> None:
    size = {"width": 48, "height": 24}
    (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS, **size)
    (actual,) = our_pictures(pair.engine, steps=STEPS, **size)
    assert actual.shape == expected.shape == (24, 48, 3)
    assert psnr(actual, expected) >= LEAST_DB


def test_ddim_with_eta(sd1_pair: Pair) -> None:
    ddim = SCHEDULERS["ddim"].make(sd1_pair.pipeline.scheduler.config)
    (expected,) = diffusers_pictures(
        sd1_pair.pipeline, scheduler=ddim, num_inference_steps=STEPS, eta=0.8
    )
    (actual,) = our_pictures(sd1_pair.engine, steps=STEPS, sampler="ddim", eta=0.8)
    assert psnr(actual, expected) >= LEAST_DB


def test_guidance_interval(sd2_pair: Pair) -> None:
    """diffusers has none, but its callback may switch guidance off after two of the four steps."""

    def stop_guiding(pipe: object, step: int, t: int, tensors: dict) -> dict:
        if step == 1:
            pipe._guidance_scale = 1.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
        return tensors

    (expected,) = diffusers_pictures(
        sd2_pair.pipeline,
        num_inference_steps=4,
        callback_on_step_end=stop_guiding,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    third_sigma = sd2_pair.engine.schedule.sigmas[251]  # leading by 250, offset 1: 751 501 251 1
    (actual,) = our_pictures(
        sd2_pair.engine, steps=4, guidance_interval=(third_sigma * 1.01, float("inf"))
    )
    assert psnr(actual, expected) >= LEAST_DB


@pytest.fixture(scope="module")
def lcm_pair(sd1: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The tiny SD 1 as a latent consistency model: its U-Net is told the guidance scale."""
    parts = sd1.pipeline.components
    teacher = parts["unet"]
    unet = type(teacher).from_config(teacher.config, time_cond_proj_dim=16).eval()
    unet.load_state_dict(teacher.state_dict(), strict=False)
    torch.manual_seed(4)
    torch.nn.init.normal_(unet.time_embedding.cond_proj.weight)
    scheduler = diffusers.LCMScheduler.from_config(parts["scheduler"].config, clip_sample=False)
    parts |= {"unet": unet, "scheduler": scheduler}
    pipeline = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp("models") / "lcm"
    pipeline.save_pretrained(folder)
    return Pair(pipeline, Engine.load(Path(folder), device="cpu", dtype="fp32"))


@pytest.mark.parametrize("guidance", [1.5, 8.0])
def test_guidance_embedding(lcm_pair: Pair, guidance: float) -> None:
    (expected,) = diffusers_pictures(
        lcm_pair.pipeline, num_inference_steps=4, guidance_scale=guidance
    )
    (actual,) = our_pictures(lcm_pair.engine, guidance_scale=guidance)  # 4 steps of lcm by itself
    assert psnr(actual, expected) >= LEAST_DB


def mixed_batch_is_its_parts(engine: Engine, asked: Sequence[dict[str, Any]]) -> None:
    """A batch of pictures steered in different ways: each is that of a batch of its own kind."""
    common: dict[str, Any] = {"prompts": [PROMPT], "width": 64, "height": 64, "steps": 2}
    plans = [engine.plan(GenerateRequest(**common, **each)) for each in asked]
    assert len({plan.group for plan in plans}) == 1

    def drawn(own: Sequence[GeneratePlan]) -> list[bytes]:
        pictures = [Picture(PROMPT, 5 + i, own=plan) for i, plan in enumerate(own)]
        return [made.image.tobytes() for made in engine.draw(own[0], pictures)]

    mixed = drawn(plans)
    for i, plan in enumerate(plans):
        assert mixed[i] == drawn([plan] * len(plans))[i]
    assert mixed[-1] != drawn([plans[0]] * len(plans))[-1]


@FAMILIES
def test_a_mixed_batch_is_its_parts_to_the_bit(pair: Pair) -> None:
    one, other = {"guidance_scale": 3.0}, {"guidance_scale": 9.0, "negative": "a dog"}
    mixed_batch_is_its_parts(pair.engine, [one, other, {"negative": ""}])


def test_each_picture_of_a_batch_is_told_its_own_guidance(lcm_pair: Pair) -> None:
    scales = (1.5, 3.0, 8.0)
    mixed_batch_is_its_parts(lcm_pair.engine, [{"guidance_scale": scale} for scale in scales])


def test_guidance_embedding_matters(lcm_pair: Pair) -> None:
    low, high = (our_pictures(lcm_pair.engine, guidance_scale=s)[0] for s in (1.5, 8.0))
    assert psnr(low, high) < 40.0
