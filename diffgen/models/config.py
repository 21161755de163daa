"""Frozen descriptions of the networks: all that varies inside the families we load.

Importing this module does not import torch, so a request can be checked against a model's config
before anything heavy starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffgen.types import ScheduleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTextConfig:
    """A CLIP text encoder (Radford et al., arXiv:2103.00020). Defaults: ViT-L/14 of SD 1.x.

    `hidden` picks the output used as context: the final hidden state after the last norm, or the
    penultimate layer's, without it (SDXL). `projection` is the width of the pooled output's
    projection, None when the checkpoint has none. `pad` is the token that fills up a prompt, None
    where the tokenizer's own files say.
    """

    vocab_size: int = 49408
    width: int = 768
    layers: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    max_tokens: int = 77
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    norm_eps: float = 1e-5
    hidden: Literal["final", "penultimate"] = "final"
    projection: int | None = None
    pad: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """A `UNet2DConditionModel`-family U-Net. Defaults: SD 1.x.

    Per-level tuples run from the highest resolution to the lowest; the up path mirrors them.
    A `depth` of 0 means the level has no cross-attention. `num_heads` is what it says, for each
    level (the field's JSON calls it `attention_head_dim`).
    """

    in_channels: int = 4
    out_channels: int = 4
    sample_size: int = 64  # native size of h and w
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # residual blocks per level going down; up has one more
    depth: tuple[int, ...] = (1, 1, 1, 0)  # transformer layers per attention block, by level
    up_depth: tuple[int, ...] | None = None  # where the up path differs; same order as depth
    mid_depth: int | None = 1  # 0: a mid block without attention; None: no mid block at all
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    context_dim: int = 768
    linear_projection: bool = False
    norm_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    time_ids_dim: int | None = None  # SDXL: sinusoidal width of each of the time ids (256)
    added_dim: int | None = None  # SDXL: pooled text + all embedded time ids (2816)
    guidance_dim: int | None = None  # LCM: width of the guidance-scale embedding (256)
    upcast_attention: bool = False  # attention logits in fp32 under half precision (SD 2.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """An `AutoencoderKL`-family autoencoder. Defaults: SD 1.x.

    latents = ((z - shift) * scaling), or with per-channel statistics
    ((z - mean) * scaling / std).
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2  # residual blocks per encoder level; the decoder has one more
    mid_attention: bool = True
    norm_groups: int = 32
    quant_conv: bool = True
    post_quant_conv: bool = True
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = False  # overflows in fp16: decode in fp32 (SDXL's original VAE)

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One text-to-image model. `vae=None` means pixel space: the autoencoder is the identity."""

    family: Literal["sd1", "sd2", "sdxl", "custom"]
    text: tuple[ClipTextConfig, ...]
    unet: UNetConfig
    vae: VaeConfig | None
    schedule: ScheduleConfig
    zero_empty_prompt: bool = False  # SDXL: an absent negative prompt is all-zero conditioning

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side (1 in pixel space)."""
        return self.vae.factor if self.vae else 1

    @property
    def native_size(self) -> int:
        """The pixel width and height the model was trained at."""
        return self.unet.sample_size * self.factor
