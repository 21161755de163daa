"""Captions -> conditioning, in batches and with gradients where the encoders learn.

`text.conditioner` encodes prompts one at a time, which is right for pictures and slow for training.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffgen.device import send
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.text.tokenizer import Tokenizer
from diffgen.types import Conditioning

REMEMBERED = 2**18  # captions; about 300 bytes each


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Captions as one encoder reads them: ids (B, T), end (B,), and which are empty, (B,) bool."""

    ids: Tensor
    end: Tensor
    empty: Tensor


def tokenize(
    tokenizers: Sequence[Tokenizer], captions: Sequence[str], device: torch.device
) -> tuple[TokenBatch, ...]:
    """One batch per tokenizer."""
    empty = send(torch.tensor([not caption for caption in captions]), device)
    batches = []
    for tokenizer in tokenizers:
        rows, ends = zip(*(_row(tokenizer, caption) for caption in captions), strict=True)
        ids = torch.frombuffer(bytearray().join(rows), dtype=torch.int32).view(len(rows), -1)
        ids, end = send(ids, device, torch.int64), send(torch.tensor(ends), device)
        batches.append(TokenBatch(ids, end, empty))
    return tuple(batches)


@lru_cache(REMEMBERED)
def _row(tokenizer: Tokenizer, caption: str) -> tuple[bytes, int]:
    """A caption's ids as 32-bit numbers, and where it ends: a GPU waits for 36 us a caption."""
    tokens = tokenizer.encode(caption)
    return array("i", tokens.ids).tobytes(), tokens.end


def encode(
    config: ModelConfig,
    encoders: Sequence[ClipTextModel],
    tokens: Sequence[TokenBatch],
    time_ids: Tensor,
) -> Conditioning:
    """The conditioning of captions; `time_ids` (B, 6) are sizes and crops in pixels, for SDXL."""
    outputs = [
        encoder(t.ids, t.end, config.text_layer)
        for encoder, t in zip(encoders, tokens, strict=True)
    ]
    context = torch.cat([output.context for output in outputs], dim=-1)
    pooled = outputs[-1].pooled
    if config.zero_empty_prompt:
        kept = ~tokens[0].empty
        context, pooled = context * kept[:, None, None], pooled * kept[:, None]
    if config.conditioning == "text":
        return Conditioning(context)
    return Conditioning(context, pooled=pooled, time_ids=time_ids)
