"""The levels of the U-Net: residual blocks and transformers, going down, in the middle, going up.

Attribute names are the keys of diffusers-format `UNet2DConditionModel` checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from diffgen.models.config import UNetConfig
from diffgen.models.layers import (
    Downsample,
    ResnetBlock,
    TransformerBlock,
    Upsample,
    to_map,
    to_tokens,
)

TRANSFORMER_GROUP_NORM_EPS = 1e-6
TIME_EXPANSION = 4  # width of the time embedding, in units of channels[0]


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of a map, with a shortcut."""

    def __init__(self, config: UNetConfig, channels: int, *, num_heads: int, depth: int) -> None:
        super().__init__()
        self.linear = config.linear_projection
        self.norm = nn.GroupNorm(config.norm_groups, channels, eps=TRANSFORMER_GROUP_NORM_EPS)
        self.proj_in = self._projection(channels)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(
                channels, config.context_dim, num_heads=num_heads, upcast=config.upcast_attention
            )
            for _ in range(depth)
        )
        self.proj_out = self._projection(channels)

    def _projection(self, channels: int) -> nn.Module:
        # Both compute the same; only the shape of the stored weight differs.
        return nn.Linear(channels, channels) if self.linear else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor, perturbed: Tensor | None = None) -> Tensor:
        """x: (B, C, h, w); context: (B, S, context_dim); result: (B, C, h, w)."""
        size = x.shape[-2:]
        y = self.norm(x)
        tokens = self.proj_in(to_tokens(y)) if self.linear else to_tokens(self.proj_in(y))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, perturbed)  # (B, h * w, C)
        if self.linear:
            y = to_map(self.proj_out(tokens), size)
        else:
            y = self.proj_out(to_map(tokens, size))
        out: Tensor = x + y
        return out


def _resnet(config: UNetConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(
        in_channels,
        out_channels,
        groups=config.norm_groups,
        eps=config.norm_eps,
        time_dim=TIME_EXPANSION * config.channels[0],
    )


class Level(nn.Module):
    """One resolution: residual blocks, each followed by a transformer unless its depth is 0."""

    def __init__(
        self,
        config: UNetConfig,
        widths: list[tuple[int, int]],
        *,
        num_heads: int,
        depths: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_resnet(config, *width) for width in widths)
        self.attentions = nn.ModuleList(
            SpatialTransformer(config, channels, num_heads=num_heads, depth=depth)
            for (_, channels), depth in zip(widths, depths, strict=True)
            if depth
        )

    def layer(self, i: int, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """Residual block `i` and its transformer: (B, C_in, h, w) -> (B, C_out, h, w)."""
        x = self.resnets[i](x, emb)
        return self.attentions[i](x, context) if self.attentions else x


class DownBlock(Level):
    """A level of the down path, which pushes each of its maps for the up path."""

    def __init__(self, config: UNetConfig, level: int, *, in_channels: int) -> None:
        channels = config.channels[level]
        widths = list(pairwise([in_channels] + [channels] * config.blocks[level]))
        depths = config.down_depths(level)
        super().__init__(config, widths, num_heads=config.num_heads[level], depths=depths)
        lowest = level == len(config.channels) - 1
        self.downsamplers = nn.ModuleList([] if lowest else [Downsample(channels)])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The map for the next level, and all maps of this one in order."""
        skips = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, emb, context)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            skips.append(x)
        return x, skips


class UpBlock(Level):
    """A level of the up path: each residual block pops one map of the down path."""

    def __init__(
        self, config: UNetConfig, level: int, *, in_channels: int, skip_channels: list[int]
    ) -> None:
        channels = config.channels[level]
        below = [in_channels] + [channels] * (len(skip_channels) - 1)
        widths = [(a + b, channels) for a, b in zip(below, skip_channels, strict=True)]
        depths = config.up_depths(level)
        super().__init__(config, widths, num_heads=config.num_heads[level], depths=depths)
        self.upsamplers = nn.ModuleList([Upsample(channels)] if level > 0 else [])

    def forward(self, x: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        """skips: all maps not yet popped, oldest first; the list is not changed."""
        count = len(self.resnets)
        for i in range(count):
            x = self.layer(i, torch.cat([x, skips[-1 - i]], dim=1), emb, context)
        for upsample in self.upsamplers:
            # Odd sizes were rounded up on the way down, so doubling could overshoot.
            x = upsample(x, skips[-1 - count].shape[-2:])
        return x


class MidBlock(nn.Module):
    """The middle: a residual block, then a transformer and another unless `mid_depth` is 0."""

    def __init__(self, config: UNetConfig, *, depth: int) -> None:
        super().__init__()
        channels, num_heads = config.channels[-1], config.num_heads[-1]
        transformers = 1 if depth else 0
        self.resnets = nn.ModuleList(
            _resnet(config, channels, channels) for _ in range(1 + transformers)
        )
        self.attentions = nn.ModuleList(
            SpatialTransformer(config, channels, num_heads=num_heads, depth=depth)
            for _ in range(transformers)
        )

    def forward(
        self, x: Tensor, emb: Tensor, context: Tensor, perturbed: Tensor | None = None
    ) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w); `perturbed` rows (B,) skip self-attention."""
        first, *rest = self.resnets
        x = first(x, emb)
        for transformer, resnet in zip(self.attentions, rest, strict=True):
            x = resnet(transformer(x, context, perturbed), emb)
        return x
