"""Prompts with learned embeddings give diffusers' pictures."""

import copy
from pathlib import Path

import pytest
import torch
from pipeline_oracle import Pair, diffusers_pictures, numpy_2_warns, our_pictures, psnr
from safetensors.torch import load_file, save_file

from diffgen.types import EmbeddingRef

pytestmark = [pytest.mark.parity, numpy_2_warns]

STEPS = 3
LEAST_DB = 67.0  # as for the pipelines
VECTORS = 3
PROMPT = "a red <toy> at sunset, <toy>"


def learned(pair: Pair, file: Path) -> Path:
    """Several vectors like those of words, for each text encoder."""
    torch.manual_seed(4)
    tables = [
        e.text_model.embeddings.token_embedding.weight for e in pair.engine.conditioner.encoders
    ]
    made = [torch.randn(VECTORS, t.shape[1]) * t.std() for t in tables]
    names = ["<toy>"] if len(made) == 1 else ["clip_l", "clip_g"]
    save_file(dict(zip(names, made, strict=True)), file)
    return file


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_diffusers_draws_the_same(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pair: Pair = request.getfixturevalue(f"{family}_pair")
    file = learned(pair, tmp_path / "file.safetensors")
    pair.engine.use_embeddings([EmbeddingRef(file, "<toy>")])
    try:
        (actual,) = our_pictures(pair.engine, prompts=[PROMPT], negative="<toy>", steps=STEPS)
    finally:
        pair.engine.use_embeddings([])
    (plain,) = our_pictures(pair.engine, prompts=[PROMPT], negative="<toy>", steps=STEPS)
    pipeline = copy.copy(pair.pipeline)
    parts = [
        n
        for n in ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
        if hasattr(pipeline, n)
    ]
    pipeline.register_modules(**{name: copy.deepcopy(getattr(pipeline, name)) for name in parts})
    tensors = load_file(file)
    for key, vectors in tensors.items():
        second = key == "clip_g"
        pipeline.load_textual_inversion(
            {"<toy>": vectors},
            token="<toy>",
            tokenizer=pipeline.tokenizer_2 if second else pipeline.tokenizer,
            text_encoder=pipeline.text_encoder_2 if second else pipeline.text_encoder,
        )
    (expected,) = diffusers_pictures(
        pipeline, prompt=PROMPT, negative_prompt="<toy>", num_inference_steps=STEPS
    )
    assert psnr(actual, expected) >= LEAST_DB
    assert psnr(plain, expected) < 40.0
