import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from diffgen.bench.clip_score import ClipScorer
from diffgen.errors import UsageError

TOKENIZER = Path(__file__).parents[1] / "vocabulary"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small random CLIP model, as a folder."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        **SMALL, vocab_size=950, max_position_embeddings=32, bos_token_id=948, eos_token_id=949
    )
    vision = CLIPVisionConfig(**SMALL, image_size=32, patch_size=8)
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=32)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size=size, crop_size=size)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def picture(seed):
    levels = np.random.default_rng(seed).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@torch.no_grad()
def expected(folder, image, prompt):
    """From the two towers, one by one."""
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    inputs = processor(text=[prompt], images=image, return_tensors="pt")
    vision = model.vision_model(inputs["pixel_values"]).pooler_output
    text = model.text_model(inputs["input_ids"]).pooler_output
    a, b = model.visual_projection(vision)[0], model.text_projection(text)[0]
    return 100 * max(float(a @ b / (a.norm() * b.norm())), 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_score_is_the_cosine_of_the_two_towers(clip, seed):
    image = picture(seed)
    score = ClipScorer(str(clip))(image, "red barn at sunset")
    assert score == pytest.approx(expected(clip, image, "red barn at sunset"), abs=1e-3)


def test_pictures_of_other_modes_and_long_prompts_are_scored(clip):
    score = ClipScorer(str(clip))
    assert 0.0 <= score(picture(0).convert("L"), "barn " * 100) <= 100.0


@pytest.mark.parametrize("kind", ["missing", "text"])
def test_what_is_no_clip_model_is_refused(tmp_path, kind):
    folder = tmp_path / kind
    if kind == "text":
        CLIPTextModel(CLIPTextConfig(**SMALL, vocab_size=950)).save_pretrained(folder)
    with pytest.raises(UsageError, match=f"--clip {folder} (is a|cannot be loaded as a) "):
        ClipScorer(str(folder))
