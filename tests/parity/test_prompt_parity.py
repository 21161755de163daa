"""Prompts that diffusers does not read, against its pipelines fed the embeddings of transformers."""

from __future__ import annotations

import diffusers
import pytest
import torch
from pipeline_oracle import SCHEDULERS, Pair, diffusers_pictures, numpy_2_warns, our_pictures, psnr
from torch import Tensor

pytestmark = [pytest.mark.parity, numpy_2_warns]

STEPS = 4
LEAST_DB = 67.0  # as for the samplers
ROOM = 30  # tokens of a chunk of the tiny models
FAMILIES = pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])


@pytest.fixture
def pair(family: str, request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(f"{family}_pair")
    return found


@torch.no_grad()
def encoded(pipeline, text: str) -> tuple[Tensor, Tensor | None]:
    """A text of any length in chunks by diffusers' own tokenizers and transformers' encoders."""
    parts = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "tokenizer_2"):
        parts.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    contexts, pooled = [], None
    for tokenizer, encoder in parts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        rows = []
        for start in range(0, max(len(ids), 1), ROOM):
            chunk = [tokenizer.bos_token_id, *ids[start : start + ROOM], tokenizer.eos_token_id]
            chunk += [tokenizer.pad_token_id] * (ROOM + 2 - len(chunk))
            out = encoder(torch.tensor([chunk]), output_hidden_states=True)
            rows.append(out.hidden_states[-2] if len(parts) > 1 else out.last_hidden_state)
            if start == 0 and len(parts) > 1:
                pooled = out[0]
        contexts.append(torch.cat(rows, dim=1))
    return torch.cat(contexts, dim=-1), pooled


def fed(pipeline, prompt: str, negative: str) -> dict[str, object]:
    (cond, pooled), (uncond, negative_pooled) = (encoded(pipeline, t) for t in (prompt, negative))
    # diffusers takes prompts of one length alone; that texts may be repeated is ours to prove.
    times = cond.shape[1] // uncond.shape[1]
    call = {"prompt": None, "negative_prompt": None, "prompt_embeds": cond}
    call["negative_prompt_embeds"] = uncond.repeat(1, times, 1)
    if pooled is not None:
        call |= {
            "pooled_prompt_embeds": pooled,
            "negative_pooled_prompt_embeds": negative_pooled,
        }
    return call


@FAMILIES
@pytest.mark.parametrize("count", [30, 31, 60, 61])
def test_long_prompts(pair: Pair, count: int) -> None:
    prompt, negative = "barn cat " * (count // 2) + "sea " * (count % 2), "night, storm"
    prompt = prompt.replace("cat", "owl", count // 4)  # chunks that differ
    call = fed(pair.pipeline, prompt, negative)
    (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS, **call)
    options = {"prompts": [prompt], "negative": negative, "prompt_style": "a1111"}
    (actual,) = our_pictures(pair.engine, steps=STEPS, **options)
    assert psnr(actual, expected) >= LEAST_DB
    if count > ROOM:
        (cut,) = our_pictures(pair.engine, steps=STEPS, **options | {"prompt_style": "plain"})
        assert psnr(actual, cut) < 50.0


@FAMILIES
def test_a_long_negative_beside_a_short_prompt(pair: Pair) -> None:
    """Each is repeated to the length of both."""
    prompt, negative = "a cat", "night, storm " * 20
    call = fed(pair.pipeline, negative, prompt)
    swapped = dict(call)
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        if name in call:
            swapped[name], swapped[f"negative_{name}"] = call[f"negative_{name}"], call[name]
    (expected,) = diffusers_pictures(pair.pipeline, num_inference_steps=STEPS, **swapped)
    options = {"prompts": [prompt], "negative": negative, "prompt_style": "compel"}
    (actual,) = our_pictures(pair.engine, steps=STEPS, **options)
    assert psnr(actual, expected) >= LEAST_DB


@FAMILIES
def test_edited_prompts_change_at_their_step(pair: Pair) -> None:
    """diffusers' callback changes the embeddings after two of four steps."""
    euler = SCHEDULERS["euler"].make(pair.pipeline.scheduler.config)  # PLMS steps twice at first
    before, after = fed(pair.pipeline, "a cat", "night"), fed(pair.pipeline, "a barn", "night")

    def change(pipe: object, step: int, t: int, tensors: dict) -> dict:
        if step == 1:
            names = ("negative_prompt_embeds", "prompt_embeds")
            tensors["prompt_embeds"] = torch.cat([after[name] for name in names])
        return tensors

    (expected,) = (
        diffusers_pictures(
            pair.pipeline,
            scheduler=euler,
            num_inference_steps=STEPS,
            callback_on_step_end=change,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
            **before,
        )
        if pair.engine.config.conditioning == "text"
        else (None,)
    )
    options = {"prompts": ["a [cat:barn:0.5]"], "negative": "night", "prompt_style": "a1111"}
    options["sampler"] = "euler"
    (actual,) = our_pictures(pair.engine, steps=STEPS, **options)
    (same,) = our_pictures(pair.engine, steps=STEPS, **options | {"prompts": ["a [cat:barn:2]"]})
    assert psnr(actual, same) == float("inf")
    if expected is not None:  # SDXL's callback cannot change the pooled text
        assert psnr(actual, expected) >= LEAST_DB


def test_each_encoder_of_sdxl_reads_its_own_prompt(sdxl_pair: Pair) -> None:
    call = {"prompt_2": "two owls", "negative_prompt_2": "snow"}
    sizes = {"original_size": (40, 64), "crops_coords_top_left": (4, 8), "target_size": (36, 60)}
    (expected,) = diffusers_pictures(
        sdxl_pair.pipeline,
        num_inference_steps=STEPS,
        negative_original_size=(40, 64),
        negative_crops_coords_top_left=(4, 8),
        negative_target_size=(36, 60),
        **call,
        **sizes,
    )
    (actual,) = our_pictures(
        sdxl_pair.engine,
        steps=STEPS,
        prompt_2="two owls",
        negative_2="snow",
        original_size=(64, 40),
        crop=(8, 4),
        target_size=(60, 36),
    )
    assert psnr(actual, expected) >= LEAST_DB


@FAMILIES
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_perturbed_attention(pair: Pair, guidance: float) -> None:
    kind = (
        diffusers.StableDiffusionXLPAGPipeline
        if pair.engine.config.is_xl
        else diffusers.StableDiffusionPAGPipeline
    )
    parts = {k: v for k, v in pair.pipeline.components.items() if v is not None}
    own = {} if pair.engine.config.is_xl else {"safety_checker": None, "feature_extractor": None}
    own |= {} if pair.engine.config.is_xl else {"requires_safety_checker": False}
    pipeline = kind(**parts | own, pag_applied_layers="mid")
    pipeline.set_progress_bar_config(disable=True)
    (expected,) = diffusers_pictures(
        pipeline, num_inference_steps=STEPS, guidance_scale=guidance, pag_scale=3.0
    )
    options = {"steps": STEPS, "guidance_scale": guidance}
    (actual,) = our_pictures(pair.engine, pag=3.0, **options)
    (plain,) = our_pictures(pair.engine, **options)
    assert psnr(actual, expected) >= LEAST_DB
    assert psnr(actual, plain) < 50.0
