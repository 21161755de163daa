"""diffgen.text.conditioner: what diffusers' pipelines make of a prompt, and our own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from diffgen.models.clip import ClipTextModel
from diffgen.text.conditioner import Conditioner
from diffgen.text.tokenizer import Tokenizer
from diffgen.types import Component
from diffgen.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_models import TinyModel

PROMPTS = ["a red barn at sunset", "A cat! On the beach, by the sea", "a " * 40]
NEGATIVE = "night, storm"
ENCODERS: tuple[Component, ...] = ("text_encoder", "text_encoder_2")


def conditioner(model: TinyModel, dtype: torch.dtype = torch.float32) -> Conditioner:
    checkpoint = Checkpoint.open(model.folder)
    encoders = []
    for component, config in zip(ENCODERS, checkpoint.config.text, strict=False):
        with torch.device("meta"):
            encoder = ClipTextModel(config)
        checkpoint.load_into(component, encoder, dtype=dtype)
        encoders.append(encoder)
    tokenizers = [Tokenizer.from_folder(folder) for folder in checkpoint.tokenizers]
    return Conditioner(checkpoint.config, tokenizers, encoders)


def oracle(model: TinyModel, negative: str | None) -> tuple[Tensor, ...]:
    many = None if negative is None else [negative] * len(PROMPTS)
    with torch.no_grad():
        result: tuple[Tensor, ...] = model.pipeline.encode_prompt(
            prompt=PROMPTS,
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=many,
        )
    return result


def assert_same(actual: Tensor | None, expected: Tensor) -> None:
    """fp32 sums in another order, three layers deep: 1e-6 is usual."""
    assert actual is not None
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parity
@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize("negative", [None, "", NEGATIVE])
@torch.no_grad()
def test_parity_with_stable_diffusion(
    family: str, negative: str | None, request: pytest.FixtureRequest
) -> None:
    model: TinyModel = request.getfixturevalue(family)
    context, negative_context = oracle(model, negative)
    ours = conditioner(model)
    cond = ours.encode(PROMPTS, width=32, height=32)
    uncond = ours.encode([negative] * len(PROMPTS), width=32, height=32)
    assert_same(cond.context, context)
    assert_same(uncond.context, negative_context)
    assert cond.pooled is None
    assert cond.time_ids is None


@pytest.mark.parity
@pytest.mark.parametrize("negative", [None, "", NEGATIVE])
@torch.no_grad()
def test_parity_with_sdxl(sdxl: TinyModel, negative: str | None) -> None:
    context, negative_context, pooled, negative_pooled = oracle(sdxl, negative)
    ours = conditioner(sdxl)
    cond = ours.encode(PROMPTS, width=48, height=32)
    uncond = ours.encode([negative] * len(PROMPTS), width=48, height=32)
    assert_same(cond.context, context)
    assert_same(cond.pooled, pooled)
    assert_same(uncond.context, negative_context)
    assert_same(uncond.pooled, negative_pooled)

    time_ids = sdxl.pipeline._get_add_time_ids(
        (32, 48), (0, 0), (32, 48), torch.float32, text_encoder_projection_dim=16
    )
    assert cond.time_ids is not None
    assert torch.equal(cond.time_ids, time_ids.expand(len(PROMPTS), -1))


@torch.no_grad()
def test_an_absent_negative_prompt_is_not_an_empty_one_in_sdxl(sdxl: TinyModel) -> None:
    absent, empty = (
        conditioner(sdxl).encode([prompt], width=32, height=32) for prompt in (None, "")
    )
    assert not absent.context.any()
    assert absent.pooled is not None
    assert not absent.pooled.any()
    assert empty.context.any()


@torch.no_grad()
def test_a_prompt_does_not_depend_on_its_batch(sdxl: TinyModel) -> None:
    ours = conditioner(sdxl)
    size: dict[str, Any] = {"width": 32, "height": 32}
    batch = ours.encode([*PROMPTS, None, PROMPTS[0]], **size)
    assert batch.pooled is not None
    for index, prompt in enumerate([*PROMPTS, None, PROMPTS[0]]):
        alone = ours.encode([prompt], **size)
        assert alone.pooled is not None
        assert torch.equal(batch.context[index], alone.context[0])
        assert torch.equal(batch.pooled[index], alone.pooled[0])


@torch.no_grad()
def test_results_have_the_format_of_the_encoders(sd1: TinyModel) -> None:
    cond = conditioner(sd1, torch.bfloat16).encode(["a cat"], width=32, height=32)
    assert cond.context.dtype == torch.bfloat16


def test_cut_words(sdxl: TinyModel) -> None:
    ours = conditioner(sdxl)
    assert ours.cut(PROMPTS[0]) == ""
    assert ours.cut(None) == ""
    assert ours.cut(PROMPTS[2]) == ("a " * 10).strip()


def test_the_longest_cut_counts(sdxl: TinyModel) -> None:
    """The second encoder pads with "!" and so reads each "!" of a prompt as a token."""
    assert conditioner(sdxl).cut("!" * 31) == "!"
