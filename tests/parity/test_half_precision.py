"""Half-precision networks: our float32 state stays closer to the float32 latents and picture."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import pytest
import torch
from pipeline_oracle import (
    GUIDANCE,
    NEGATIVE,
    PROMPT,
    Pair,
    diffusers_pictures,
    load_storybook,
    numpy_2_warns,
    our_pictures,
)
from torch import Tensor

from diffgen import Engine, GenerateRequest

pytestmark = [pytest.mark.parity, numpy_2_warns]

SEEDS = (11, 12, 13)
STEPS = 20


def mean_error(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Mean absolute difference in levels."""
    pairs = zip(actual, expected, strict=True)
    return float(np.mean([np.abs(a.astype(float) - e).mean() for a, e in pairs]))


def our_latents(engine: Engine) -> Tensor:
    """(3, C, h, w) after 20 steps, one row per seed."""
    plan = engine.plan(
        GenerateRequest(
            prompts=[PROMPT],
            negative=NEGATIVE,
            steps=STEPS,
            sampler="ddim",
            guidance_scale=GUIDANCE,
        )
    )
    return engine.sample(plan, SEEDS, engine.guides(plan, [PROMPT] * len(SEEDS)))


def their_latents(pair: Pair) -> Tensor:
    """The same by diffusers in bf16, with its own DDIM."""
    from diffusers import DDIMScheduler

    pipeline = deepcopy(pair.pipeline).to(torch.bfloat16)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    output = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        guidance_scale=GUIDANCE,
        num_inference_steps=STEPS,
        num_images_per_prompt=len(SEEDS),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
    )
    latents: Tensor = output.images.float()
    return latents


@pytest.mark.parametrize("name", ["storybook", "sd1", "sd2", "sdxl"])
def test_latents_are_closer_to_float32_than_diffusers(
    name: str, request: pytest.FixtureRequest
) -> None:
    """The gate of every optimisation in bf16; fp16 takes a CPU twenty times as long."""
    pair: Pair = request.getfixturevalue(f"{name}_pair")
    exact = our_latents(pair.engine)
    half = Engine.load(pair.engine.model, device="cpu", dtype="bf16")
    ours, again = our_latents(half), our_latents(half)
    assert torch.equal(ours, again)
    assert 0.0 < (ours - exact).norm() < (their_latents(pair) - exact).norm()


def test_pictures_are_about_as_close_to_float32_as_diffusers(storybook_pair: Pair) -> None:
    """Both are a level off in the mean, of which decoding makes most; over 16 seeds ours 3 % more."""
    settings = {"steps": 5, "sampler": "ddim", "count": len(SEEDS), "batch_size": len(SEEDS)}
    exact = our_pictures(storybook_pair.engine, **settings)
    ours = our_pictures(Engine.load("storybook", device="cpu", dtype="bf16"), **settings)
    theirs = diffusers_pictures(load_storybook(torch.bfloat16), seeds=SEEDS, num_inference_steps=5)
    assert 0.0 < mean_error(ours, exact) < 1.1 * mean_error(theirs, exact)
