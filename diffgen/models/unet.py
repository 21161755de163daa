"""The denoising U-Net of Stable Diffusion 1, 2 and XL and of models pruned from them.

Rombach et al., arXiv:2112.10752; SDXL, arXiv:2307.01952; BK-SDM, arXiv:2305.15798. Attribute names
are the keys of diffusers-format `UNet2DConditionModel` checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.errors import UsageError
from diffgen.models.config import UNetConfig
from diffgen.models.layers import group_norm_silu, sinusoidal_embedding
from diffgen.models.unet_blocks import TIME_EXPANSION, DownBlock, MidBlock, UpBlock
from diffgen.types import Conditioning


def guidance_embedding(guidance_scale: Tensor, dim: int) -> Tensor:
    """Embed guidance scales (B,) for a distilled U-Net: (B, dim) float32.

    Distillation uses w = guidance_scale - 1 (Meng et al., arXiv:2210.03142, section 3.1; LCM,
    arXiv:2310.04378, section 4.2), embedded as 1000 w like a time.
    """
    w = 1000.0 * (guidance_scale.float() - 1.0)
    return sinusoidal_embedding(w, dim, flip_sin_to_cos=False, freq_shift=1.0)


def _required(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise UsageError(f"this U-Net was trained with Conditioning.{name}, which is missing")
    return value


class EmbeddingMlp(nn.Module):
    """Sinusoids, or a conditioning vector, to an embedding that every residual block reads."""

    def __init__(self, in_dim: int, out_dim: int, *, guidance_dim: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, out_dim)
        self.linear_2 = nn.Linear(out_dim, out_dim)
        self.cond_proj = (
            nn.Linear(guidance_dim, in_dim, bias=False) if guidance_dim is not None else None
        )

    def forward(self, x: Tensor, guidance: Tensor | None = None) -> Tensor:
        """x: (B, in_dim); guidance: (B, guidance_dim); result: (B, out_dim)."""
        if self.cond_proj is not None:
            x = x + self.cond_proj(guidance)
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


@dataclass(frozen=True, slots=True)
class Top:
    """The outputs of the highest level on the down path.

    emb: (B, time_dim), after SiLU; context: (B, S, context_dim); skips: maps for the up path,
    oldest first; below: the map for the next level; perturbed: (B,) bool, rows that skip
    self-attention in the mid block.
    """

    emb: Tensor
    context: Tensor
    skips: list[Tensor]
    below: Tensor
    perturbed: Tensor | None = None


class UNet(nn.Module):
    """Predicts eps, v or x0 of noisy latents at time t, given a `Conditioning`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        time_dim = TIME_EXPANSION * channels[0]

        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = EmbeddingMlp(channels[0], time_dim, guidance_dim=config.guidance_dim)
        self.add_embedding = (
            EmbeddingMlp(config.added_dim, time_dim) if config.added_dim is not None else None
        )

        # The down path pushes maps on a stack; the up path pops them.
        skips = [channels[0]]
        self.down_blocks = nn.ModuleList()
        for level, blocks in enumerate(config.blocks):
            self.down_blocks.append(DownBlock(config, level, in_channels=skips[-1]))
            downsamples = level < len(channels) - 1
            skips += [channels[level]] * (blocks + downsamples)

        self.mid_block = (
            MidBlock(config, depth=config.mid_depth) if config.mid_depth is not None else None
        )

        below = channels[-1]
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(channels))):
            taken = [skips.pop() for _ in range(config.blocks[level] + 1)]
            self.up_blocks.append(UpBlock(config, level, in_channels=below, skip_channels=taken))
            below = channels[level]

        self.conv_norm_out = nn.GroupNorm(config.norm_groups, channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """x: (B, C, h, w), any h and w; t: (B,) or (), may be fractional; result like x.

        x, `cond.context` and `cond.concat` have the weights' dtype. Raises UsageError if `cond`
        lacks an input of this U-Net.
        """
        top = self.top(x, t, cond)
        return self.finish(self.bottom(top), top)

    def compute(self, x: Tensor, t: Tensor, cond: Conditioning) -> tuple[Tensor, Tensor]:
        """The result of `forward`, and the output of the lower levels, for `reuse`."""
        top = self.top(x, t, cond)
        below = self.bottom(top)
        return self.finish(below, top), below

    def reuse(
        self, x: Tensor, t: Tensor, cond: Conditioning, below: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `compute`, with the lower levels' output for another x and t of the same shapes."""
        return self.finish(below, self.top(x, t, cond)), below

    def top(self, x: Tensor, t: Tensor, cond: Conditioning) -> Top:
        """The input layers and the highest level on the down path; arguments as for `forward`."""
        x = self._with_concat(x, cond)
        emb = self._embed(x, t, cond)
        x = self.conv_in(x)
        below, made = self.down_blocks[0](x, emb, cond.context)
        return Top(emb, cond.context, [x, *made], below, cond.perturbed)

    def bottom(self, top: Top) -> Tensor:
        """All lower levels, down and up again: (B, C, h, w) for the highest level."""
        x, skips = top.below, list(top.skips)
        for block in islice(self.down_blocks, 1, None):
            x, made = block(x, top.emb, top.context)
            skips += made

        if self.mid_block is not None:
            x = self.mid_block(x, top.emb, top.context, top.perturbed)

        lower = self.config.blocks[:0:-1]  # from the lowest level; `finish` has the highest
        for block, blocks in zip(islice(self.up_blocks, len(lower)), lower, strict=True):
            x = block(x, top.emb, top.context, skips)
            skips = skips[: -(blocks + 1)]
        return x

    def finish(self, x: Tensor, top: Top) -> Tensor:
        """The highest level on the up path and the output layers, given the result of `bottom`."""
        skips = top.skips[: self.config.blocks[0] + 1]
        x = self.up_blocks[-1](x, top.emb, top.context, skips)
        out: Tensor = self.conv_out(group_norm_silu(self.conv_norm_out, x))
        return out

    def _with_concat(self, x: Tensor, cond: Conditioning) -> Tensor:
        """Append the extra channels of 8-channel (edit) and 9-channel (inpaint) U-Nets to x."""
        if cond.concat is not None:
            x = torch.cat([x, cond.concat], dim=1)
        if x.shape[1] != self.config.in_channels:
            raise UsageError(
                f"this U-Net takes {self.config.in_channels} input channels, got {x.shape[1]};"
                " the channels besides the latents belong in Conditioning.concat"
            )
        return x

    def _embed(self, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """The embedding of t and of all conditioning except text tokens: (B, time_dim)."""
        config, batch = self.config, x.shape[0]
        guidance = None
        if config.guidance_dim is not None:
            scale = _required(cond.guidance, "guidance")
            guidance = guidance_embedding(scale, config.guidance_dim).to(x.dtype)
        times = self._sinusoids(t.expand(batch), config.channels[0])
        emb: Tensor = self.time_embedding(times.to(x.dtype), guidance)

        if self.add_embedding is not None:
            vectors = [_required(cond.pooled, "pooled")]
            if config.time_ids_dim is not None:
                time_ids = _required(cond.time_ids, "time_ids")
                sizes = self._sinusoids(time_ids.flatten(), config.time_ids_dim)
                vectors.append(sizes.reshape(batch, -1))  # (B, 6 * time_ids_dim)
            emb = emb + self.add_embedding(torch.cat(vectors, dim=-1).to(x.dtype))

        # Every residual block reads SiLU(emb), so apply it once.
        return F.silu(emb)

    def _sinusoids(self, values: Tensor, dim: int) -> Tensor:
        config = self.config
        return sinusoidal_embedding(
            values, dim, flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift
        )
