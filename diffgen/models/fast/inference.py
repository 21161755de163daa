"""Prepare loaded networks for inference: fused products, and weights in the device's layout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffgen.kernels.packed import can_pack
from diffgen.models.fast.pack import pack_weights
from diffgen.models.layers import Attention, TransformerBlock, attention, without_attention


def prepare(network: nn.Module) -> None:
    """Make a network as fast as its device allows, irreversibly and for inference only.

    The plain weights are dropped; results differ from theirs by rounding.
    """
    weight = next(network.parameters())
    fuse(network)
    if can_pack(weight.device, weight.dtype):
        pack_weights(network)
    elif weight.device.type == "cuda":
        put_channels_last(network)


def put_channels_last(network: nn.Module) -> None:
    """Store a network's feature maps channels last, as tensor cores multiply them.

    Convolutions return the layout of their weights; otherwise cuDNN converts in each call.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.to(memory_format=torch.channels_last)
            layer.weight = nn.Parameter(weight, requires_grad=False)


def fuse(network: nn.Module) -> None:
    """Replace the attention layers of every transformer block."""
    for block in network.modules():
        if isinstance(block, TransformerBlock):
            block.attn1 = FusedSelfAttention(block.attn1)  # type: ignore[assignment] # its stand-in
            block.attn2 = FusedCrossAttention(block.attn2)  # type: ignore[assignment] # its stand-in


class FusedSelfAttention(nn.Module):
    """Self-attention with q, k and v in one product."""

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.num_heads, self.upcast = layer.num_heads, layer.upcast
        self.to_qkv = _stacked(layer.to_q, layer.to_k, layer.to_v)
        self.to_out = layer.to_out

    def forward(self, x: Tensor, context: Tensor, perturbed: Tensor | None = None) -> Tensor:
        """x: (B, T, dim), which is the context too; result: (B, T, dim)."""
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        mixed = attention(q, k, v, num_heads=self.num_heads, upcast=self.upcast)
        out: Tensor = self.to_out(without_attention(mixed, v, perturbed))
        return out


class FusedCrossAttention(nn.Module):
    """Attention to the prompt, whose keys and values are computed once for all steps.

    A context is recognised by identity: after an in-place change, `read` must be called again.
    """

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.num_heads, self.upcast = layer.num_heads, layer.upcast
        self.to_q, self.to_kv = layer.to_q, _stacked(layer.to_k, layer.to_v)
        self.to_out = layer.to_out
        self.context: Tensor | None = None
        self.kv: Tensor | None = None

    def read(self, context: Tensor) -> Tensor:
        """Cache the keys and values of a context (B, S, context_dim): (B, S, 2 dim)."""
        self.context, self.kv = context, self.to_kv(context)
        return self.kv

    def forget(self) -> None:
        """Drop the cache, after a change of weights."""
        self.context = self.kv = None

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (B, T, dim); context: (B, S, context_dim); result: (B, T, dim)."""
        known = self.kv is not None and self.context is context
        kv = self.kv if known else self.read(context)
        assert kv is not None
        k, v = kv.chunk(2, dim=-1)
        q = self.to_q(x)
        out: Tensor = self.to_out(attention(q, k, v, num_heads=self.num_heads, upcast=self.upcast))
        return out


def _stacked(*layers: nn.Linear) -> nn.Linear:
    """One layer with the outputs of several, which have no biases."""
    weight = torch.cat([layer.weight for layer in layers])
    stacked = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    stacked.weight = nn.Parameter(weight, requires_grad=False)
    return stacked
