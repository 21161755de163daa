"""Tiny random diffusers pipelines, saved as model folders: the oracle of parity tests.

Each is a real checkpoint in small: the layout, the options and the scheduler of its family, random
weights of sensible size (every layer matters, outputs have a spread of about 1), and a small
vocabulary (`vocabulary/`: 950 tokens learned from picture-book captions).
"""

import json
import math
import shutil
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

ModuleT = TypeVar("ModuleT", bound=nn.Module)
PipelineT = TypeVar("PipelineT", bound=DiffusionPipeline)

STORYBOOK = Path(__file__).parent.parent / "diffgen" / "assets" / "storybook"
VOCABULARY = Path(__file__).parent / "vocabulary"
SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class TinyModel(NamedTuple):
    """A model folder, and the diffusers pipeline that wrote it."""

    folder: Path
    pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline


def tiny_sd1(path: Path) -> StableDiffusionPipeline:
    """Stable Diffusion 1 in small: convolution projections, quick GELU, PNDM; factor 4."""
    torch.manual_seed(1)
    pipeline = StableDiffusionPipeline(
        vae=random_vae(scaling_factor=0.18215),
        text_encoder=randomized(CLIPTextModel(text_config())),
        tokenizer=_tokenizer(path / "tokenizer"),
        unet=random_unet(cross_attention_dim=32, attention_head_dim=4),
        scheduler=PNDMScheduler(
            **SD_NOISE, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return saved(pipeline, path)


def tiny_sd2(path: Path) -> StableDiffusionPipeline:
    """Stable Diffusion 2 in small: v-prediction, linear projections, GELU, "!" as padding."""
    torch.manual_seed(2)
    pipeline = StableDiffusionPipeline(
        vae=random_vae(scaling_factor=0.18215),
        text_encoder=randomized(CLIPTextModel(text_config(hidden_act="gelu"))),
        tokenizer=_tokenizer(path / "tokenizer", pad="!"),
        unet=random_unet(
            cross_attention_dim=32,
            attention_head_dim=[2, 4],
            use_linear_projection=True,
            upcast_attention=True,
        ),
        scheduler=DDIMScheduler(
            **SD_NOISE,
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return saved(pipeline, path)


# diffusers' options of a U-Net like Stable Diffusion XL's, of two levels.
XL_UNET = {
    "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
}


def tiny_sdxl(path: Path) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL in small: two encoders, sizes as conditioning, uneven depth."""
    torch.manual_seed(3)
    second = text_config(hidden_act="gelu", hidden_size=48, projection_dim=16)
    pipeline = StableDiffusionXLPipeline(
        vae=random_vae(scaling_factor=0.13025),
        text_encoder=randomized(CLIPTextModel(text_config())),
        text_encoder_2=randomized(CLIPTextModelWithProjection(second)),
        tokenizer=_tokenizer(path / "tokenizer"),
        tokenizer_2=_tokenizer(path / "tokenizer_2", pad="!"),
        unet=random_unet(
            cross_attention_dim=32 + 48,
            attention_head_dim=[2, 4],
            **XL_UNET,
            projection_class_embeddings_input_dim=16 + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(**SD_NOISE, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )
    return saved(pipeline, path)


def text_config(**changes: object) -> CLIPTextConfig:
    options = {
        "vocab_size": 950,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "hidden_act": "quick_gelu",
        "bos_token_id": 948,
        "eos_token_id": 949,
        "pad_token_id": 949,
    }
    return CLIPTextConfig(**options | changes)


def _tokenizer(folder: Path, *, pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """The small vocabulary, laid out as the hub's SD checkpoints are."""
    shutil.copytree(VOCABULARY, folder, copy_function=shutil.copyfile)
    file = folder / "special_tokens_map.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": pad}))
    return CLIPTokenizer.from_pretrained(folder)


def random_unet(**options: object) -> UNet2DConditionModel:
    defaults = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    unet = randomized(UNet2DConditionModel(**defaults | options))
    added = {}
    if options.get("addition_embed_type"):
        sizes = 6 * unet.config.addition_time_embed_dim
        pooled = unet.config.projection_class_embeddings_input_dim - sizes
        added = {"text_embeds": torch.randn(2, pooled), "time_ids": torch.full((2, 6), 32.0)}
    context = torch.randn(2, 32, unet.config.cross_attention_dim)
    with torch.no_grad():
        out = unet(torch.randn(2, 4, 8, 8), 500, context, added_cond_kwargs=added).sample
    _scale(unet.conv_out, 1 / out.std())
    return unet


def random_vae(
    *, scaling_factor: float, channels: tuple[int, int, int] = (16, 32, 32), groups: int = 8
) -> AutoencoderKL:
    """Three levels: 4 pixels per latent along each side."""
    vae = randomized(
        AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=groups,
            sample_size=32,
            scaling_factor=scaling_factor,
        )
    )
    with torch.no_grad():
        pixels = vae.decode(torch.randn(2, 4, 8, 8)).sample
        _scale(vae.decoder.conv_out, 0.4 / pixels.std())
        latents = vae.encode(torch.randn(2, 3, 32, 32)).latent_dist.mean
        _scale(vae.quant_conv, 1 / (scaling_factor * latents.std()))
    return vae


def randomized(module: ModuleT) -> ModuleT:
    """Give every parameter a say: unit-gain weights, norms and biases off their neutral values."""
    for name, parameter in module.named_parameters():
        noise = torch.randn_like(parameter)
        if "embedding.weight" in name:
            parameter.data = noise
        elif parameter.ndim > 1:
            parameter.data = noise / math.sqrt(parameter[0].numel())
        else:
            parameter.data = 0.1 * noise + float("norm" in name and name.endswith("weight"))
    return module.eval()


def _scale(layer: nn.Conv2d, factor: torch.Tensor) -> None:
    layer.weight.data *= factor
    layer.bias.data *= factor


def saved(pipeline: PipelineT, path: Path) -> PipelineT:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(path)
    return pipeline
