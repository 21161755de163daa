"""Frozen configs of the networks: everything that varies within the supported families.

Each number has a range, far beyond any model in use, which `models.checks` enforces before a
network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from diffgen.limits import MAX_LAYERS, within
from diffgen.types import AysName, NoiseConfig, PromptStyle

Family: TypeAlias = Literal["sd1", "sd2", "sdxl", "custom"]
Task: TypeAlias = Literal["text", "inpaint", "edit", "other"]
ConditioningKind: TypeAlias = Literal["text", "pooled", "sizes", "score"]
Depth: TypeAlias = int | tuple[int, ...]
# The defaults of diffusers' pipelines; diffgen's small models were tuned to 5.
GUIDANCE_SCALES: Mapping[Family, float] = {"sd1": 7.5, "sd2": 7.5, "sdxl": 5.0, "custom": 5.0}

CLIP_VOCABULARY = 49_408  # tokens; more where embeddings were added to it
MAX_WIDTH = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTextConfig:
    """A CLIP text encoder (Radford et al., arXiv:2103.00020). Defaults: ViT-L/14 of SD 1.x.

    `hidden` picks the output used as context: the final hidden state after the last norm, or the
    penultimate layer's, without it (SDXL). `projection` is the width of the pooled output's
    projection, None when the checkpoint has none. `pad` is the token that fills up a prompt, None
    where the tokenizer's own files say.
    """

    vocab_size: int = within(49408, 1, 10_000_000)
    width: int = within(768, 1, MAX_WIDTH)
    layers: int = within(12, 1, MAX_LAYERS)
    num_heads: int = within(12, 1, MAX_WIDTH)
    mlp_width: int = within(3072, 1, 16 * MAX_WIDTH)
    max_tokens: int = within(77, 3, 1 << 15)  # a start, an end and one word
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    norm_eps: float = within(1e-5, 0.0, 1.0)
    hidden: Literal["final", "penultimate"] = "final"
    projection: int | None = within(None, 1, MAX_WIDTH)
    pad: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """A `UNet2DConditionModel`-family U-Net. Defaults: SD 1.x.

    Per-level tuples run from the highest resolution to the lowest; the up path mirrors them. A
    `depth` of 0 means the level has no cross-attention. `num_heads` is the number of heads of each
    level (diffusers' JSON calls it `attention_head_dim`).
    """

    in_channels: int = within(4, 1, 1024)
    out_channels: int = within(4, 1, 1024)
    sample_size: int = within(64, 1, 4096)  # h and w in training
    channels: tuple[int, ...] = within((320, 640, 1280, 1280), 1, MAX_WIDTH)
    # Residual blocks per level going down; up has one more.
    blocks: tuple[int, ...] = within((2, 2, 2, 2), 1, 64)
    # Transformer layers per attention block, by level; `up_depth` where the up path differs. A
    # level whose blocks differ (SSD-1B) has one number for each, in the order of the path.
    depth: tuple[Depth, ...] = within((1, 1, 1, 0), 0, MAX_LAYERS)
    up_depth: tuple[Depth, ...] | None = within(None, 0, MAX_LAYERS)
    # 0: a mid block without attention; None: no mid block at all.
    mid_depth: int | None = within(1, 0, MAX_LAYERS)
    num_heads: tuple[int, ...] = within((8, 8, 8, 8), 1, MAX_WIDTH)
    context_dim: int = within(768, 1, MAX_WIDTH)
    linear_projection: bool = False
    norm_groups: int = within(32, 1, MAX_WIDTH)
    norm_eps: float = within(1e-5, 0.0, 1.0)
    flip_sin_to_cos: bool = True
    freq_shift: float = within(0.0, 0.0, 1.0)
    # SDXL: sinusoidal width of each time id (256); width of these and the pooled text (2816).
    time_ids_dim: int | None = within(None, 4, MAX_WIDTH)
    added_dim: int | None = within(None, 1, 16 * MAX_WIDTH)
    # LCM: width of the guidance-scale embedding (256).
    guidance_dim: int | None = within(None, 4, MAX_WIDTH)
    upcast_attention: bool = False  # attention logits in fp32 under half precision (SD 2.1)

    @property
    def is_uneven(self) -> bool:
        """Whether the blocks of some level differ in depth."""
        return any(isinstance(d, tuple) for d in (*self.depth, *(self.up_depth or ())))

    def down_depths(self, level: int) -> tuple[int, ...]:
        """Transformer layers of each block of a level on the down path."""
        return spread(self.depth[level], self.blocks[level])

    def up_depths(self, level: int) -> tuple[int, ...]:
        """Transformer layers on the up path, where a level has one block more."""
        return spread((self.up_depth or self.depth)[level], self.blocks[level] + 1)


def spread(depth: Depth, blocks: int) -> tuple[int, ...]:
    """A level's depth for each of its blocks."""
    return depth if isinstance(depth, tuple) else (depth,) * blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """An `AutoencoderKL`-family autoencoder. Defaults: SD 1.x.

    latents = (z - shift) * scaling, or with per-channel statistics (z - mean) * scaling / std.
    """

    in_channels: int = within(3, 3, 3)
    out_channels: int = within(3, 3, 3)
    latent_channels: int = within(4, 1, 1024)
    channels: tuple[int, ...] = within((128, 256, 512, 512), 1, MAX_WIDTH)
    blocks: int = within(2, 1, 64)  # residual blocks per encoder level; the decoder has one more
    mid_attention: bool = True
    norm_groups: int = within(32, 1, MAX_WIDTH)
    quant_conv: bool = True
    post_quant_conv: bool = True
    scaling_factor: float = within(0.18215, 1e-6, 1e6)
    shift_factor: float = within(0.0, -1e6, 1e6)
    latents_mean: tuple[float, ...] | None = within(None, -1e6, 1e6)
    latents_std: tuple[float, ...] | None = within(None, 1e-6, 1e6)
    force_upcast: bool = False  # overflows in fp16: decode in fp32 (SDXL's original VAE)

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One text-to-image model. `vae=None` means pixel space: the autoencoder is the identity."""

    family: Family
    text: tuple[ClipTextConfig, ...]
    unet: UNetConfig
    vae: VaeConfig | None
    schedule: NoiseConfig
    zero_empty_prompt: bool = False  # SDXL: an absent negative prompt is all-zero conditioning
    # The encoders' layer to read, from the end, if the model's metadata name another than `hidden`.
    clip_skip: int | None = within(None, 1, MAX_LAYERS)
    # Steps and guidance of a distilled model; None means the family's.
    steps: int | None = within(None, 1, 100_000)
    guidance: float | None = within(None, 0.0, 1000.0)

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side (1 in pixel space)."""
        return self.vae.factor if self.vae else 1

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, h, w) of one picture's latents, for a size in pixels, multiples of `factor`."""
        return self.latent_channels, height // self.factor, width // self.factor

    @property
    def vae_overflows(self) -> bool:
        """Whether the autoencoder must decode in fp32 where the U-Net runs in fp16."""
        return self.vae is not None and self.vae.force_upcast

    @property
    def latent_channels(self) -> int:
        """Channels of the sampler's state: latents, or the colours of pixels."""
        return self.vae.latent_channels if self.vae else self.unet.out_channels

    @property
    def pixel_channels(self) -> int:
        """Channels of pictures: colours, and opacity in some pixel-space models."""
        return self.vae.in_channels if self.vae else self.latent_channels

    @property
    def extra_channels(self) -> int:
        """Input channels of the U-Net beside the noisy latents: `Conditioning.concat`."""
        return self.unet.in_channels - self.latent_channels

    @property
    def output_channels(self) -> int:
        """Output channels of the U-Net: those of the latents, and variances in some models."""
        return self.unet.out_channels

    @property
    def context_width(self) -> int:
        """The width of text tokens."""
        return self.unet.context_dim

    @property
    def level_blocks(self) -> tuple[int, ...]:
        """The residual blocks of each level on the way down, which number the layers of LoRAs."""
        return self.unet.blocks

    @property
    def has_mid_attention(self) -> bool:
        """Whether the U-Net's mid block has attention, which PAG perturbs."""
        return bool(self.unet.mid_depth)

    @property
    def takes_time_ids(self) -> bool:
        """Whether the U-Net reads `Conditioning.time_ids`."""
        return self.unet.time_ids_dim is not None

    def embedding_guidance(self, width: int) -> ModelConfig:
        """This model with a U-Net that takes the guidance scale, embedded in `width` numbers."""
        return replace(self, unet=replace(self.unet, guidance_dim=width))

    @property
    def task(self) -> Task:
        """What the extra channels are for: a mask and a picture to fill, or a picture to edit."""
        tasks: dict[int, Task] = {0: "text", 1 + self.latent_channels: "inpaint"}
        tasks[self.latent_channels] = "edit"
        return tasks.get(self.extra_channels, "other")

    @property
    def conditioning(self) -> ConditioningKind:
        """The U-Net's inputs beside the text tokens."""
        if self.unet.added_dim is None:
            return "text"
        return {6: "sizes", 5: "score"}.get(self.size_ids, "pooled")  # type: ignore[return-value]

    @property
    def size_ids(self) -> int:
        """The number of size inputs beside the pooled text: sizes, crop, a score."""
        if not (self.unet.added_dim and self.unet.time_ids_dim and self.text):
            return 0
        pooled = self.text[-1].projection or self.text[-1].width
        return (self.unet.added_dim - pooled) // self.unet.time_ids_dim

    @property
    def embeds_guidance(self) -> bool:
        """Whether the guidance scale is an input of the U-Net (LCM), not a second evaluation."""
        return self.unet.guidance_dim is not None

    @property
    def guidance_scale(self) -> float:
        """The default guidance scale of the model, or else of its family."""
        return GUIDANCE_SCALES[self.family] if self.guidance is None else self.guidance

    @property
    def is_xl(self) -> bool:
        """Whether noise levels and files follow the conventions of Stable Diffusion XL."""
        return self.family == "sdxl"

    @property
    def ays(self) -> AysName:
        """The family whose list of Align Your Steps (arXiv:2404.14507) fits the model."""
        return "sdxl" if self.is_xl else "sd15"

    @property
    def is_refiner(self) -> bool:
        """Whether the model is like the refiner of Stable Diffusion XL, with its second encoder."""
        return self.is_xl and len(self.text) == 1

    @property
    def prompt_style(self) -> PromptStyle:
        """The default prompt style: A1111's with CLIP's vocabulary, else plain."""
        knows_clip = all(encoder.vocab_size >= CLIP_VOCABULARY for encoder in self.text)
        return "a1111" if knows_clip else "plain"

    @property
    def text_layer(self) -> int:
        """The layer of the text encoders to read, counted from the last, which is 1."""
        return self.clip_skip or (2 if self.text[0].hidden == "penultimate" else 1)

    @property
    def native_size(self) -> int:
        """The pixel width and height the model was trained at."""
        return self.unet.sample_size * self.factor
