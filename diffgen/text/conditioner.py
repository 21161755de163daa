"""Prompts -> the `Conditioning` a U-Net reads: one CLIP encoder (SD 1, SD 2), or SDXL's two.

SD: Rombach et al., arXiv:2112.10752, section 3.3. SDXL: Podell et al., arXiv:2307.01952, section
2.1 (two encoders, pooled text) and 2.2 (sizes and crops).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffgen.errors import ConfigError
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.text.tokenizer import Tokenizer
from diffgen.types import Conditioning


class Encoded(NamedTuple):
    """One prompt after the encoders: context (1, T, D) and pooled (1, P)."""

    context: Tensor
    pooled: Tensor


class Conditioner:
    """Encodes prompts with a model's text encoders.

    A prompt of None is an absent negative prompt: all zeros for models trained so
    (`config.zero_empty_prompt`), else the same as "". Results have the encoders' dtype and device.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizers: Sequence[Tokenizer],
        encoders: Sequence[ClipTextModel],
    ) -> None:
        """One tokenizer for each encoder, in the order of `config.text`.

        Raises ConfigError for tokenizers that cut prompts at different lengths.
        """
        lengths = {tokenizer.max_tokens for tokenizer in tokenizers}
        if len(lengths) > 1:
            raise ConfigError(
                "the model's tokenizers read prompts of different length (model_max_length), "
                f"{' and '.join(map(str, sorted(lengths)))} tokens"
            )
        self.config = config
        self.tokenizers = tuple(tokenizers)
        self.encoders = tuple(encoders)

    def encode(
        self,
        prompts: Sequence[str | None],
        *,
        width: int,
        height: int,
        clip_skip: int | None = None,
    ) -> Conditioning:
        """Conditioning for a batch of pictures of this size in pixels, B = len(prompts).

        `clip_skip` is the encoders' layer that is read, 1 the last, None the model's own. Each distinct prompt is encoded once and by itself, so its numbers never depend on what
        else is in the batch.
        """
        layer = self.config.text_layer if clip_skip is None else clip_skip
        encoded = {prompt: self._encode_one(prompt, layer) for prompt in dict.fromkeys(prompts)}
        context = torch.cat([encoded[prompt].context for prompt in prompts])
        if self.config.conditioning == "text":
            return Conditioning(context)
        # Original size, top-left corner of the crop, target size: an uncropped picture.
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        return Conditioning(
            context,
            pooled=torch.cat([encoded[prompt].pooled for prompt in prompts]),
            time_ids=sizes.expand(len(prompts), -1).to(context.device),
        )

    def cut(self, prompt: str | None) -> str:
        """The end of a prompt that some encoder has no room for; empty if all of it is read."""
        return max((t.encode(prompt or "").cut for t in self.tokenizers), key=len)

    def _encode_one(self, prompt: str | None, layer: int) -> Encoded:
        outputs = []
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            tokens = tokenizer.encode(prompt or "")
            device = next(encoder.parameters()).device
            ids = torch.tensor([tokens.ids], device=device)
            outputs.append(encoder(ids, torch.tensor([tokens.end], device=device), layer))
        # Only the last encoder of SDXL has a pooled output that its U-Net knows.
        context = torch.cat([output.context for output in outputs], dim=-1)
        pooled = outputs[-1].pooled
        if prompt is None and self.config.zero_empty_prompt:
            return Encoded(torch.zeros_like(context), torch.zeros_like(pooled))
        return Encoded(context, pooled)
