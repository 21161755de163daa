"""Layers shared by the networks. Attribute names are the keys of diffusers-format checkpoints.

Feature maps are (B, C, h, w), token sequences (B, T, D).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.kernels import ops

MAX_PERIOD = 10_000.0  # longest period of the sinusoidal embeddings, over 2 pi


def sinusoidal_embedding(
    values: Tensor, dim: int, *, flip_sin_to_cos: bool, freq_shift: float
) -> Tensor:
    """Embed each of N numbers as sines and cosines (Vaswani et al., arXiv:1706.03762, 3.5).

    values: (N,); result: (N, dim) float32, sines first unless `flip_sin_to_cos`; dim is even.
    `freq_shift` 1 makes the last frequency exactly 1 / MAX_PERIOD (DDPM), 0 stops short of it.
    """
    half = dim // 2
    ladder = torch.arange(half, dtype=torch.float32, device=values.device)
    frequencies = torch.exp(-math.log(MAX_PERIOD) * ladder / (half - freq_shift))
    # In bfloat16 a t near 1000 would be off by whole radians, so stay in float32.
    phase = values.float()[:, None] * frequencies  # (N, dim / 2)
    waves = (phase.cos(), phase.sin()) if flip_sin_to_cos else (phase.sin(), phase.cos())
    return torch.cat(waves, dim=-1)


def group_norm_silu(norm: nn.GroupNorm, x: Tensor, shift: Tensor | None = None) -> Tensor:
    """SiLU of the group-normalised map, which precedes nearly every convolution here.

    x: (B, C, h, w); shift: (B, C), added to every position first.
    """
    return ops.group_norm_silu(
        x, norm.weight, norm.bias, groups=norm.num_groups, eps=norm.eps, shift=shift
    )


class LayerNorm(nn.LayerNorm):
    """LayerNorm by the fastest backend."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, num_heads: int, causal: bool = False, upcast: bool = False
) -> Tensor:
    """Multi-head scaled dot-product attention on projected tokens (arXiv:1706.03762, eq. 1).

    q: (B, T, D); k, v: (B, S, D); result: (B, T, D) in q's dtype. `upcast` keeps the logits in
    float32 for weights whose logits overflow half precision.
    """
    dtype = q.dtype
    # (B, T or S, D) -> (B, num_heads, T or S, D / num_heads)
    q, k, v = (x.view(*x.shape[:2], num_heads, -1).transpose(1, 2) for x in (q, k, v))
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    out = ops.attention(q, k, v, causal=causal)
    return out.transpose(1, 2).flatten(2).to(dtype)  # (B, T, D)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, size: torch.Size) -> Tensor:
    """(B, h * w, C) -> (B, C, h, w), with `size` = (h, w)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *size)


class ResnetBlock(nn.Module):
    """Two normalised convolutions beside a shortcut (He et al., arXiv:1512.03385).

    With a `time_dim`, the embedding of t is added between the two, one number per channel (DDPM,
    arXiv:2006.11239, appendix B).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, groups: int, eps: float, time_dim: int | None
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, out_channels) if time_dim is not None else None
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            nn.Conv2d(in_channels, out_channels, 1)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """x: (B, C_in, h, w); emb: (B, time_dim), already through SiLU; result: (B, C_out, h, w)."""
        y = self.conv1(group_norm_silu(self.norm1, x))
        shift = self.time_emb_proj(emb) if self.time_emb_proj is not None else None
        y = self.conv2(group_norm_silu(self.norm2, y, shift))
        out: Tensor = self.conv_shortcut(x) + y
        return out


class Attention(nn.Module):
    """Attention from tokens of width `dim` to a context, possibly themselves."""

    def __init__(self, dim: int, context_dim: int, *, num_heads: int, upcast: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.upcast = upcast
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(self, x: Tensor, context: Tensor, perturbed: Tensor | None = None) -> Tensor:
        """x: (B, T, dim); context: (B, S, context_dim); result: (B, T, dim).

        In `perturbed` rows (B,) each token attends only to itself.
        """
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        mixed = attention(q, k, v, num_heads=self.num_heads, upcast=self.upcast)
        out: Tensor = self.to_out(without_attention(mixed, v, perturbed))
        return out


def without_attention(mixed: Tensor, values: Tensor, perturbed: Tensor | None) -> Tensor:
    """Replace attention by the identity (arXiv:2403.17377, section 4.2) in some rows (B,)."""
    return mixed if perturbed is None else torch.where(perturbed[:, None, None], values, mixed)


class GatedGelu(nn.Module):
    """GEGLU (Shazeer, arXiv:2002.05202, eq. 5)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_dim, 2 * out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in_dim) -> (B, T, out_dim)."""
        return ops.gated_gelu(self.proj(x))


class FeedForward(nn.Module):
    """The gated MLP of a transformer block, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Checkpoints count a dropout layer as net.1, which is omitted here.
        self.net = nn.Sequential(GatedGelu(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the prompt, feed-forward; each pre-norm and residual."""

    def __init__(self, dim: int, context_dim: int, *, num_heads: int, upcast: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn1 = Attention(dim, dim, num_heads=num_heads, upcast=upcast)
        self.norm2 = LayerNorm(dim)
        self.attn2 = Attention(dim, context_dim, num_heads=num_heads, upcast=upcast)
        self.norm3 = LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, context: Tensor, perturbed: Tensor | None = None) -> Tensor:
        """x: (B, T, dim); context: (B, S, context_dim); result: (B, T, dim).

        `perturbed` rows (B,) skip self-attention.
        """
        y = self.norm1(x)
        x = x + self.attn1(y, y, perturbed)
        x = x + self.attn2(self.norm2(x), context)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class Downsample(nn.Module):
    """Halve h and w by a stride-2 convolution.

    Autoencoders pad on the right and bottom only, so an even size is halved exactly; U-Nets pad all
    four sides and round odd sizes up.
    """

    def __init__(self, channels: int, *, asymmetric: bool = False) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Upsample(nn.Module):
    """Enlarge h and w by repeating pixels, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C, *size); without a `size`, twice the size of x."""
        h, w = size or (2 * x.shape[-2], 2 * x.shape[-1])
        out: Tensor = self.conv(F.interpolate(x, size=(h, w), mode="nearest"))
        return out
