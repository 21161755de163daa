"""The operators in plain torch: the specification of every other backend, and the CPU's way."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, shift: Tensor | None
) -> Tensor:
    """SiLU of the group-normalised map (arXiv:1803.08494; SiLU: arXiv:1702.03118).

    x: (B, C, h, w); weight, bias: (C,); shift: (B, C), added to every position first.
    """
    if shift is not None:
        x = x + shift[:, :, None, None]
    return F.silu(F.group_norm(x, groups, weight, bias, eps))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalise the last dimension (arXiv:1607.06450). x: (..., D); weight, bias: (D,)."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def gated_gelu(x: Tensor) -> Tensor:
    """(..., 2 D) -> (..., D): the first half times the exact GELU of the second (2002.05202)."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Scaled dot-product attention (arXiv:1706.03762, eq. 1).

    q: (B, heads, T, D); k, v: (B, heads, S, D); result: (B, heads, T, D). `causal` hides from
    token t the ones after it.
    """
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
