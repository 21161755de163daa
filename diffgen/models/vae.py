"""The KL-regularised autoencoder between pixels and latents (Rombach et al., arXiv:2112.10752).

Attribute names are the keys of diffusers-format `AutoencoderKL` checkpoints.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

from diffgen.models.config import VaeConfig
from diffgen.models.layers import (
    Downsample,
    ResnetBlock,
    Upsample,
    attention,
    group_norm_silu,
    to_map,
    to_tokens,
)

NORM_EPS = 1e-6
LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0  # the range the field clamps to, so that exp() stays finite


def _resnet(config: VaeConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(
        in_channels, out_channels, groups=config.norm_groups, eps=NORM_EPS, time_dim=None
    )


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions of a map, with a shortcut."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        tokens = to_tokens(self.group_norm(x))  # (B, h * w, C)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        return x + to_map(self.to_out(attention(q, k, v, num_heads=1)), x.shape[-2:])


class EncoderBlock(nn.Module):
    """One resolution of the encoder."""

    def __init__(self, config: VaeConfig, channels: tuple[int, int], *, downsample: bool) -> None:
        super().__init__()
        before, after = channels
        widths = pairwise([before] + [after] * config.blocks)
        self.resnets = nn.Sequential(*(_resnet(config, a, b) for a, b in widths))
        self.downsamplers = nn.Sequential(
            *([Downsample(after, asymmetric=True)] if downsample else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h / 2, w / 2), or (B, C_out, h, w) at the last level."""
        out: Tensor = self.downsamplers(self.resnets(x))
        return out


class DecoderBlock(nn.Module):
    """One resolution of the decoder, with one residual block more than the encoder's."""

    def __init__(self, config: VaeConfig, channels: tuple[int, int], *, upsample: bool) -> None:
        super().__init__()
        before, after = channels
        widths = pairwise([before] + [after] * (config.blocks + 1))
        self.resnets = nn.Sequential(*(_resnet(config, a, b) for a, b in widths))
        self.upsamplers = nn.Sequential(*([Upsample(after)] if upsample else []))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, 2 h, 2 w), or (B, C_out, h, w) at the last level."""
        out: Tensor = self.upsamplers(self.resnets(x))
        return out


class MidBlock(nn.Module):
    """Two residual blocks at the lowest resolution, with optional attention between them."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels = config.channels[-1]
        self.resnets = nn.ModuleList(_resnet(config, channels, channels) for _ in range(2))
        self.attentions = nn.Sequential(
            *(
                [SpatialAttention(channels, groups=config.norm_groups)]
                if config.mid_attention
                else []
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        before, after = self.resnets
        out: Tensor = after(self.attentions(before(x)))
        return out


class Encoder(nn.Module):
    """Pixels to the moments of z."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        steps = list(pairwise((first, *config.channels)))
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.down_blocks = nn.Sequential(
            *(EncoderBlock(config, s, downsample=i < len(steps)) for i, s in enumerate(steps, 1))
        )
        self.mid_block = MidBlock(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_groups, last, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2 C, h, w)."""
        x = self.mid_block(self.down_blocks(self.conv_in(x)))
        out: Tensor = self.conv_out(group_norm_silu(self.conv_norm_out, x))
        return out


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        first, last = config.channels[-1], config.channels[0]
        steps = list(pairwise((first, *reversed(config.channels))))
        self.conv_in = nn.Conv2d(config.latent_channels, first, 3, padding=1)
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.Sequential(
            *(DecoderBlock(config, s, upsample=i < len(steps)) for i, s in enumerate(steps, 1))
        )
        self.conv_norm_out = nn.GroupNorm(config.norm_groups, last, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(last, config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W)."""
        x = self.up_blocks(self.mid_block(self.conv_in(z)))
        out: Tensor = self.conv_out(group_norm_silu(self.conv_norm_out, x))
        return out


class Autoencoder(nn.Module):
    """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w) and back; H = factor * h.

    z is the encoder's output; latents are z shifted and scaled to about unit variance, the space of
    the U-Net (arXiv:2112.10752, appendix G).
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        c = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1) if config.quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(c, c, 1) if config.post_quant_conv else nn.Identity()

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and log-variance of z given pixels (B, 3, H, W): two (B, C, h, w)."""
        return self.moments(self.encoder(pixels))

    def moments(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """The moments from the encoder's raw output (B, 2 C, h, w)."""
        mean, logvar = self.quant_conv(encoded).chunk(2, dim=1)
        return mean, logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w), scaled, to pixels (B, 3, H, W); not clamped to [-1, 1]."""
        pixels: Tensor = self.decoder(self.post_quant_conv(self.from_latents(latents)))
        return pixels

    def to_latents(self, z: Tensor) -> Tensor:
        """Normalise z (B, C, h, w) to latents of the same shape."""
        offset, scale = self._offset_and_scale(z)
        return (z - offset) * scale

    def from_latents(self, latents: Tensor) -> Tensor:
        """The inverse of `to_latents`."""
        offset, scale = self._offset_and_scale(latents)
        return latents / scale + offset

    def _offset_and_scale(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        config = self.config
        if config.latents_mean is None or config.latents_std is None:
            return config.shift_factor, config.scaling_factor
        mean = like.new_tensor(config.latents_mean)[:, None, None]  # (C, 1, 1)
        std = like.new_tensor(config.latents_std)[:, None, None]
        return mean, config.scaling_factor / std


class IdentityAutoencoder(nn.Module):
    """The autoencoder of pixel-space diffusion (DDPM, arXiv:2006.11239): latents are pixels."""

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels, and the smallest possible log-variance."""
        return pixels, torch.full_like(pixels, LOGVAR_MIN)

    def decode(self, latents: Tensor) -> Tensor:
        """The latents themselves."""
        return latents

    def to_latents(self, z: Tensor) -> Tensor:
        """z itself."""
        return z

    def from_latents(self, latents: Tensor) -> Tensor:
        """The latents themselves."""
        return latents


AnyAutoencoder: TypeAlias = Autoencoder | IdentityAutoencoder
