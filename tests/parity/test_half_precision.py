"""Half-precision networks: our float32 state stays closer to the float32 picture."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pipeline_oracle import (
    Pair,
    diffusers_pictures,
    load_storybook,
    numpy_2_warns,
    our_pictures,
)

from diffgen import Engine

pytestmark = [pytest.mark.parity, numpy_2_warns]

SEEDS = (11, 12, 13)


def mean_error(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Mean absolute difference in levels."""
    pairs = zip(actual, expected, strict=True)
    return float(np.mean([np.abs(a.astype(float) - e).mean() for a, e in pairs]))


def test_closer_to_float32_than_diffusers(storybook_pair: Pair) -> None:
    """In bf16; fp16 takes a CPU twenty times as long."""
    settings = {"steps": 5, "sampler": "ddim", "count": len(SEEDS), "batch_size": len(SEEDS)}
    exact = our_pictures(storybook_pair.engine, **settings)
    ours = our_pictures(Engine.load("storybook", device="cpu", dtype="bf16"), **settings)
    theirs = diffusers_pictures(load_storybook(torch.bfloat16), seeds=SEEDS, num_inference_steps=5)
    assert 0.0 < mean_error(ours, exact) < mean_error(theirs, exact)
