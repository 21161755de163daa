"""LoRA files for other models are named for what they are."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from diffgen.errors import WeightsError
from diffgen.weights.adapters.files import read_lora
from diffgen.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from tiny_models import TinyModel


@pytest.mark.parametrize(
    ("stem", "width", "model"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", 3072, "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q", 3072, "Flux"),
        ("lora_transformer_single_transformer_blocks_0_attn_to_q", 3072, "Flux"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", 3072, "Flux"),
        ("lora_unet_distilled_guidance_layer_layers_0_in_layer", 64, "Chroma"),
        ("lora_unet_double_blocks_19_img_attn_qkv", 3072, "Hunyuan Video"),
        ("lora_unet_joint_blocks_0_context_block_attn_qkv", 1536, "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_k_proj", 1536, "Stable Diffusion 3"),
        ("diffusion_model.blocks.0.cross_attn.k", 5120, "Wan"),
        ("lora_unet_blocks_0_self_attn_q", 5120, "Wan"),
        ("transformer.blocks.0.attn1.to_q", 5120, "Wan"),
        ("transformer_blocks.0.img_mod.1", 3072, "Qwen-Image"),
        ("lora_unet_transformer_blocks_0_attn_to_q", 3072, "Flux or Qwen-Image"),
        ("diffusion_model.layers.0.attention.qkv", 3840, "Lumina or Z-Image"),
        ("lora_unet_blocks_0_attn1_Wqkv", 1408, "Hunyuan-DiT"),
        ("transformer.transformer_blocks.0.attn1.to_q", 1152, "PixArt"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q", 2048, "a diffusion transformer"),
        ("lora_unet_down_blocks_0_2_attention_attn_in_proj", 1024, "Stable Cascade"),
        (
            "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
            4096,
            "a model with a T5 text encoder",
        ),
    ],
)
@pytest.mark.parametrize("parts", ["lora_down up", "lora_A B"])
def test_another_architecture_is_named(
    stem: str, width: int, model: str, parts: str, sd1: "TinyModel", tmp_path: Path
) -> None:
    down, up = parts.split()
    up = f"lora_{up}"
    tensors = {
        f"{stem}.{down}.weight": torch.ones(4, width),
        f"{stem}.{up}.weight": torch.ones(8, 4),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(
        WeightsError, match=f"is a LoRA for {model} and does not fit this model: 0 of"
    ):
        read_lora(tmp_path / "x.safetensors", Checkpoint.open(sd1.folder))


def test_what_its_trainer_said_is_told(sd1: "TinyModel", tmp_path: Path) -> None:
    said = {"modelspec.architecture": "new-model-9/lora"}
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, tmp_path / "x.safetensors", said)
    with pytest.raises(WeightsError, match='for what its trainer called "new-model-9/lora" and'):
        read_lora(tmp_path / "x.safetensors", Checkpoint.open(sd1.folder))


def test_the_family_is_told_where_only_shapes_differ(sd1: "TinyModel", tmp_path: Path) -> None:
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{stem}.lora_down.weight": torch.ones(4, 1024),
        f"{stem}.lora_up.weight": torch.ones(320, 4),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"\(320, 4\); it was made for Stable Diffusion 2$"):
        read_lora(tmp_path / "x.safetensors", Checkpoint.open(sd1.folder))
