"""A small text encoder of 77 tokens twice, ours and that of transformers, and a conditioner of it."""

from __future__ import annotations

import torch
from tiny_models import VOCABULARY, randomized, text_config
from transformers import CLIPTextModel, CLIPTokenizer

from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig
from diffgen.text.conditioner import Conditioner
from diffgen.text.tokenizer import Tokenizer
from diffgen.types import NoiseConfig

START, END = 948, 949
CONFIG = ClipTextConfig(
    vocab_size=950, width=32, layers=3, num_heads=4, mlp_width=64, max_tokens=77
)


def their_encoder() -> CLIPTextModel:
    torch.manual_seed(4)
    return randomized(CLIPTextModel(text_config(max_position_embeddings=77)))


def their_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(VOCABULARY, model_max_length=77)


def conditioner(theirs: CLIPTextModel, **options: object) -> Conditioner:
    ours = ClipTextModel(CONFIG)
    state = theirs.state_dict()
    prefix = "" if any(key.startswith("text_model.") for key in state) else "text_model."
    ours.load_state_dict({prefix + k: v for k, v in state.items() if "position_ids" not in k})
    config = ModelConfig(
        family="sd1", text=(CONFIG,), unet=UNetConfig(), vae=None, schedule=NoiseConfig()
    )
    return Conditioner(config, [tokenizer()], [ours.eval()], **options)


def tokenizer() -> Tokenizer:
    made = Tokenizer.from_folder(VOCABULARY)
    made.max_tokens = 77  # where its folder says 32
    return made
