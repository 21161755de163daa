"""How token weights change the output of a text encoder; weight 1 changes nothing.

z is the encoder's output for a chunk, (1, T, D), w the weights of its tokens.

    a1111   w z, times mean(z) / mean(w z), both means over the whole chunk
    comfy   e + w (z - e), with e the encoder's output for a chunk without words
    compel  as comfy, then for each piece of weight below 1 a weighted mean with the prompt's
            encoding where that piece is masked: 1 to tan((1 - w) pi / 2)

Sources: A1111's wiki, "Attention/emphasis"; ComfyUI's README, "Notes"; compel's documentation,
"Weighting". The pooled output is never weighted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from diffgen.errors import UsageError
from diffgen.models.clip import ClipTextOutput
from diffgen.text.chunks import Chunk
from diffgen.types import PromptStyle

LEAST = 1e-5  # weight by which compel takes 0, whose tangent is infinite


class Reader(Protocol):
    """Encodes one chunk; `hidden` tokens are masked from all others."""

    def __call__(self, chunk: Chunk, hidden: Sequence[bool] | None = None) -> ClipTextOutput: ...

    def empty(self) -> Chunk:
        """The chunk without words."""
        ...


def weigh(chunks: Sequence[Chunk], style: PromptStyle, read: Reader) -> list[ClipTextOutput]:
    """The encoded chunks of a prompt, weighted. Raises UsageError if the weights cancel."""
    if not any(chunk.weighted for chunk in chunks):
        return [read(chunk) for chunk in chunks]
    if style == "a1111":
        return [_with_mean_restored(chunk, read(chunk)) for chunk in chunks]
    nothing = read(read.empty()).context
    outputs = [_from_nothing(chunk, read(chunk), nothing) for chunk in chunks]
    return _without(chunks, outputs, nothing, read) if style == "compel" else outputs


def _with_mean_restored(chunk: Chunk, output: ClipTextOutput) -> ClipTextOutput:
    if not chunk.weighted:
        return output
    weighted = output.context * _column(chunk, output.context)
    restored = weighted * (output.context.mean() / weighted.mean())
    if not bool(torch.isfinite(restored).all()):
        raise UsageError("the weights of a prompt cancel each other; take others")
    return output._replace(context=restored)


def _from_nothing(chunk: Chunk, output: ClipTextOutput, nothing: Tensor) -> ClipTextOutput:
    if not chunk.weighted:
        return output
    weights = _column(chunk, nothing)
    moved = nothing + weights * (output.context - nothing)
    # Where the weight is 1, the encoder's output without any rounding.
    return output._replace(context=torch.where(weights == 1.0, output.context, moved))


def _without(
    chunks: Sequence[Chunk], outputs: list[ClipTextOutput], nothing: Tensor, read: Reader
) -> list[ClipTextOutput]:
    """The mean with encodings in which one light piece is hidden, for each such piece."""
    total, shares = [output.context for output in outputs], 1.0
    for weight, hidden in _light_pieces(chunks):
        share = math.tan((1.0 - max(weight, LEAST)) * math.pi / 2)
        for index, chunk in enumerate(chunks):
            without = _from_nothing(chunk, read(chunk, hidden[index]), nothing)
            total[index] = total[index] + share * without.context
        shares += share
    return [
        output._replace(context=context / shares)
        for output, context in zip(outputs, total, strict=True)
    ]


def _light_pieces(chunks: Sequence[Chunk]) -> Iterator[tuple[float, list[list[bool]]]]:
    """The weight of each piece lighter than 1, and its token mask in each chunk."""
    places = [
        (weight, index, position)
        for index, chunk in enumerate(chunks)
        for position, weight in enumerate(chunk.weights)
        if _is_word(chunk, position)
    ]
    for weight, piece in groupby(places, key=lambda place: place[0]):
        if weight < 1.0:
            hidden = [[False] * len(chunk.tokens) for chunk in chunks]
            for _, index, position in piece:
                hidden[index][position] = True
            yield weight, hidden


def _is_word(chunk: Chunk, position: int) -> bool:
    return 0 < position < chunk.end


def _column(chunk: Chunk, like: Tensor) -> Tensor:
    """The weights as (1, T, 1)."""
    return like.new_tensor(chunk.weights).reshape(1, -1, 1)
