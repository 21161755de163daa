"""diffgen.text.conditioner: what diffusers' pipelines make of a prompt, and our own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from diffgen.errors import UsageError
from diffgen.models.clip import ClipTextModel
from diffgen.text.conditioner import Conditioner, Sizes, TextSettings
from diffgen.text.grammar import parse
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


SIGMAS = (14.0, 9.0, 5.0, 2.0, 0.5, 0.0)  # five steps
REQUEST = TextSettings(sigmas=SIGMAS, sizes=Sizes.uncropped(48, 32))


@torch.no_grad()
def test_a_plain_prompt_is_told_from_the_first_level_to_the_last(sdxl: TinyModel) -> None:
    ours = conditioner(sdxl)
    guide = ours.guide([parse(PROMPTS[0])], [parse(NEGATIVE, negative=True)], REQUEST)
    for course, prompt in ((guide.cond[0], PROMPTS[0]), (guide.uncond, NEGATIVE)):
        assert course is not None
        ((floor, told),) = course.stages
        assert floor < 0.0
        plain = ours.encode([prompt], width=48, height=32)
        for name in ("context", "pooled", "time_ids"):
            assert torch.equal(getattr(told, name), getattr(plain, name))


@torch.no_grad()
def test_each_step_has_its_wording(sd1: TinyModel) -> None:
    """What counts at the noise level a step begins at, and below it until the next."""
    ours = conditioner(sd1)
    guide = ours.guide([parse("a [cat:dog:0.6] by the [sea|barn]")], None, REQUEST)
    (course,) = guide.cond
    words = ["a cat by the sea", "a cat by the barn", "a cat by the sea"]
    words += ["a dog by the barn", "a dog by the sea"]
    for step, text in enumerate(words):
        middle = (SIGMAS[step] + SIGMAS[step + 1]) / 2
        for sigma in (SIGMAS[step], middle):
            told = course.stages[course.stage(sigma)][1]
            assert torch.equal(told.context, ours.encode([text], width=48, height=32).context)


@torch.no_grad()
def test_wordings_that_come_back_are_encoded_once(sd1: TinyModel) -> None:
    ours = conditioner(sd1)
    calls = []
    ours.encoders[0].register_forward_hook(lambda *given: calls.append(given))
    ours.guide([parse("[a|b|c] (d:1.2)")], None, REQUEST)
    assert len(calls) == 3 + 1  # and the absent negative
    ours.guide([parse("[c|a] (d:1.2)")], None, REQUEST)
    assert len(calls) == 4
    ours.forget()
    ours.guide([parse("a")], None, REQUEST)
    assert len(calls) == 6


@torch.no_grad()
def test_the_pooled_text_of_a_long_prompt_is_that_of_its_first_chunk(sdxl: TinyModel) -> None:
    ours = conditioner(sdxl)
    (course,) = ours.guide([parse("a (cat:1.3) BREAK by the sea")], None, REQUEST).cond
    first = ours.encode(["a cat"], width=48, height=32)
    told = course.stages[0][1]
    assert told.context.shape == (1, 64, 80)
    assert torch.equal(told.pooled, first.pooled)
    second = ours.encode(["by the sea"], width=48, height=32)
    assert torch.equal(told.context[:, 32:], second.context)
    assert not torch.equal(told.context[:, :32], first.context)  # it is weighted


@pytest.mark.parity
@torch.no_grad()
def test_each_encoder_may_have_a_prompt_of_its_own(sdxl: TinyModel) -> None:
    ours = conditioner(sdxl)
    guide = ours.guide(
        [parse(PROMPTS[0]), parse(PROMPTS[1])], [parse(NEGATIVE), parse("snow")], REQUEST
    )
    context, negative, pooled, negative_pooled = sdxl.pipeline.encode_prompt(
        prompt=PROMPTS[0],
        prompt_2=PROMPTS[1],
        negative_prompt=NEGATIVE,
        negative_prompt_2="snow",
        device="cpu",
    )
    told, not_told = guide.cond[0].stages[0][1], guide.uncond.stages[0][1]
    assert_same(told.context, context)
    assert_same(told.pooled, pooled)
    assert_same(not_told.context, negative)
    assert_same(not_told.pooled, negative_pooled)


@torch.no_grad()
def test_encoders_that_count_differently_have_equally_many_chunks(sdxl: TinyModel) -> None:
    """The second tokenizer knows "!" as its padding, the first reads "!!" as one word."""
    ours = conditioner(sdxl)
    (term,) = parse("! !! !!! " * 8).terms
    first, second = ours.chunks((term.at(0, 1),), "a1111")
    assert len(first) == len(second) == 2
    guide = ours.guide([parse("a BREAK b"), parse("c")], None, REQUEST)
    assert guide.cond[0].stages[0][1].context.shape == (1, 64, 80)


def test_prompts_of_the_encoders_are_composed_alike(sdxl: TinyModel) -> None:
    with pytest.raises(UsageError, match="AND in different numbers"):
        conditioner(sdxl).guide([parse("a AND b"), parse("c")], None, REQUEST)


@pytest.mark.parity
@torch.no_grad()
def test_sizes_are_told_as_diffusers_does(sdxl: TinyModel) -> None:
    sizes = Sizes(original=(100, 60), target=(90, 50), crop=(7, 3))
    request = TextSettings(sigmas=SIGMAS, sizes=sizes)
    (course,) = conditioner(sdxl).guide([parse("a")], None, request).cond
    theirs = sdxl.pipeline._get_add_time_ids(
        (60, 100), (3, 7), (50, 90), torch.float32, text_encoder_projection_dim=16
    )
    assert torch.equal(course.stages[0][1].time_ids, theirs)
