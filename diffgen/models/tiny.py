"""The decoder of TAESD (Bohan, https://github.com/madebyollin/taesd): latents to pixels, quickly.

A distilled substitute for an autoencoder's decoder: 3 x 3 convolutions of 64 channels, no norms and
no attention. Attribute names are the keys of diffusers' AutoencoderTiny.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

REACH = 3.0  # soft clipping range of latents


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """`blocks` are the numbers of residual blocks, from the smallest map to that of the pixels."""

    latent_channels: int = 4
    width: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)

    @property
    def factor(self) -> int:
        """Pixels per latent, along one side."""
        return int(2 ** (len(self.blocks) - 1))


class TinyBlock(nn.Module):
    """Three convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return torch.relu(self.conv(x) + x)


class TinyDecoder(nn.Module):
    """Decodes scaled latents, as the U-Net has them, to pixels."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        layers: list[nn.Module] = [_conv(config.latent_channels, width), nn.ReLU()]
        for level, blocks in enumerate(config.blocks):
            if level:
                layers += [nn.Upsample(scale_factor=2), _conv(width, width, bias=False)]
            layers += [TinyBlock(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, _conv(width, 3))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to pixels (B, 3, H, W) around [-1, 1]; not clamped."""
        pixels: Tensor = self.layers(torch.tanh(latents / REACH) * REACH)
        return pixels * 2 - 1


def _conv(into: int, out: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1, bias=bias)
