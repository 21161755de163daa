"""CLIP's text encoder (Radford et al., arXiv:2103.00020), which encodes prompts for the U-Net.

Attribute names are the keys of transformers-format checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.models.config import ClipTextConfig
from diffgen.models.layers import LayerNorm, attention


class ClipTextOutput(NamedTuple):
    """An encoded prompt: `context` (B, T, D) for cross-attention, `pooled` (B, P) for SDXL."""

    context: Tensor
    pooled: Tensor


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU that OpenAI trained with (arXiv:1606.08415, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class SelfAttention(nn.Module):
    """Causal self-attention: each token attends to itself and to those before it."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); no token attends to those in `hidden` (T,) bool."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if hidden is None:
            mixed = attention(q, k, v, num_heads=self.num_heads, causal=True)
        else:
            mixed = self._attention_without(q, k, v, hidden)
        out: Tensor = self.out_proj(mixed)
        return out

    def _attention_without(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
        # (B, T, D) -> (B, heads, T, D / heads)
        q, k, v = (x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        seen = torch.ones(len(hidden), len(hidden), dtype=torch.bool, device=q.device).tril()
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen & ~hidden)
        return out.transpose(1, 2).flatten(2)  # (B, T, D)


class Mlp(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.width, eps=config.norm_eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); `hidden` as in `SelfAttention`."""
        x = x + self.self_attn(self.layer_norm1(x), hidden)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """(B, T, D) -> the output of each layer, (B, T, D)."""
        outputs = []
        for layer in self.layers:
            x = layer(x, hidden)
            outputs.append(x)
        return outputs


class Embeddings(nn.Module):
    """Learned vectors for tokens and for positions."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.max_tokens, config.width)

    def forward(self, ids: Tensor, vectors: Mapping[int, Tensor] | None = None) -> Tensor:
        """(B, T) -> (B, T, D); `vectors` (D,) replace the tokens at their positions."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        words: Tensor = self.token_embedding(ids)
        for position, vector in (vectors or {}).items():
            words[:, position] = vector
        out: Tensor = words + self.position_embedding(positions)
        return out


class TextTransformer(nn.Module):
    """Embeddings, layers and the final norm: the encoder without its projection."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        ids: Tensor,
        vectors: Mapping[int, Tensor] | None = None,
        hidden: Tensor | None = None,
    ) -> list[Tensor]:
        """(B, T) -> the output of each layer before the final norm, (B, T, D)."""
        outputs: list[Tensor] = self.encoder(self.embeddings(ids, vectors), hidden)
        return outputs


class ClipTextModel(nn.Module):
    """CLIP's text encoder, with its projection into the image-text space if it has one."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextTransformer(config)
        self.text_projection = (
            nn.Linear(config.width, config.projection, bias=False)
            if config.projection is not None
            else nn.Identity()
        )

    def forward(
        self,
        ids: Tensor,
        end: Tensor,
        skip: int | None = None,
        *,
        vectors: Mapping[int, Tensor] | None = None,
        hidden: Tensor | None = None,
    ) -> ClipTextOutput:
        """Encode token ids (B, T); `end` (B,) is the index of each prompt's end token.

        `skip` is the layer that `context` comes from, 1 the last ("clip skip"), by default that of
        `config.hidden`; the final norm is applied where the last layer's output would have it. The
        end token attends to the whole prompt, so its final state summarises it (2.4 in the paper):
        that state, projected, is `pooled`. T is at most `config.max_tokens`. `vectors` (D,) are
        learned embeddings, by the position of the token each replaces; no token attends to those in
        `hidden` (T,) bool.
        """
        outputs = self.text_model(ids, vectors, hidden)
        norm = self.text_model.final_layer_norm
        last = norm(outputs[-1])
        summary = last[torch.arange(len(end), device=end.device), end]  # (B, D)
        if self.config.hidden == "penultimate":
            context = outputs[-(skip or 2)]
        else:
            context = norm(outputs[-skip]) if skip and skip > 1 else last
        return ClipTextOutput(context, self.text_projection(summary))
