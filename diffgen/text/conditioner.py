"""Encode prompts to `Conditioning`, by one CLIP encoder (SD 1, SD 2) or SDXL's two.

SD: Rombach et al., arXiv:2112.10752, section 3.3. SDXL: Podell et al., arXiv:2307.01952, section
2.1 (two encoders, pooled text) and 2.2 (sizes and crops).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffgen.diffusion.course import Course, Guide
from diffgen.errors import ConfigError, UsageError
from diffgen.models.clip import ClipTextModel, ClipTextOutput
from diffgen.models.config import ModelConfig
from diffgen.text import weighting
from diffgen.text.chunks import Chunk, Vector, divide, empty
from diffgen.text.embeddings import Embeddings
from diffgen.text.prompt import Piece, Prompt, Term, Wording
from diffgen.text.tokenizer import Tokenizer
from diffgen.types import Conditioning, PromptStyle

# The refiner's aesthetic scores for the prompt and the negative (diffusers' numbers).
HIGH_SCORE, LOW_SCORE = 6.0, 2.5
KEPT = 64  # encoded prompts; one of SDXL's has 2.5 MB in 4 chunks


class Encoded(NamedTuple):
    """One encoded prompt: context (1, T, D) and pooled (1, P)."""

    context: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True)
class Sizes:
    """SDXL's size conditioning, in pixels: (width, height) and the crop's (left, top)."""

    original: tuple[int, int]
    target: tuple[int, int]
    crop: tuple[int, int] = (0, 0)

    @classmethod
    def uncropped(cls, width: int, height: int) -> Sizes:
        """The sizes of an uncropped picture."""
        return cls((width, height), (width, height))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """How the prompts of a run are encoded.

    `sigmas` are the noise levels of the run: step i goes from the i-th to the next. `layer` is the
    encoders' layer to read, 1 the last, None the model's default.
    """

    sigmas: Sequence[float]
    sizes: Sizes
    layer: int | None = None


NO_EMBEDDINGS = Embeddings({})


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
        embeddings: Embeddings = NO_EMBEDDINGS,
    ) -> None:
        """One tokenizer for each encoder, in the order of `config.text`.

        Raises ConfigError for tokenizers of different lengths.
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
        self.embeddings = embeddings
        self._kept: OrderedDict[Hashable, Encoded] = OrderedDict()

    def encode(
        self,
        prompts: Sequence[str | None],
        *,
        width: int,
        height: int,
        clip_skip: int | None = None,
    ) -> Conditioning:
        """Conditioning of plain prompts for pictures of this size in pixels, B = len(prompts).

        `clip_skip` is the encoders' layer to read, 1 the last, None the model's default. Each
        prompt is encoded by itself, so its numbers never depend on the rest of the batch.
        """
        sizes = Sizes.uncropped(width, height)
        words = [None if prompt is None else _plain(prompt) for prompt in prompts]
        rows = [
            self._conditioning(self._encoded(word, "plain", clip_skip), sizes) for word in words
        ]
        names = ("context", "pooled", "time_ids")
        columns = {name: [getattr(row, name) for row in rows] for name in names}
        return Conditioning(**{k: torch.cat(v) for k, v in columns.items() if v[0] is not None})

    def guide(
        self, prompts: Sequence[Prompt], negatives: Sequence[Prompt] | None, settings: TextSettings
    ) -> Guide:
        """Conditioning for one picture and its negative, over the noise levels of the run.

        One prompt for all encoders, or one for each. The negative is read at the model's default
        layer, as in diffusers; None is an absent negative. Raises UsageError if AND divides the
        encoders' prompts differently, and for an unknown embedding.
        """
        style = prompts[0].style
        terms = [prompt.terms for prompt in prompts]
        if len({len(each) for each in terms}) > 1:
            raise UsageError("the encoders' prompts have AND in different numbers")
        courses = tuple(
            self._course(each, style, settings, settings.layer) for each in zip(*terms, strict=True)
        )
        if negatives is None:
            encoded = self._encoded(None, style, None)
            absent = self._conditioning(encoded, settings.sizes, LOW_SCORE)
            return Guide(courses, Course.constant(absent))
        negative = [prompt.terms[0] for prompt in negatives]
        return Guide(courses, self._course(negative, style, settings, None, LOW_SCORE))

    def cut(self, prompt: str | None) -> str:
        """The longest end of a plain prompt that an encoder cuts off; empty if none does."""
        (pieces,) = self.embeddings.split(_plain(prompt or "")[0])
        if not any(piece.embedding for piece in pieces):
            return max((t.encode(prompt or "").cut for t in self.tokenizers), key=len)
        room = min(tokenizer.room for tokenizer in self.tokenizers)
        for index, piece in enumerate(pieces):
            room -= max(self._length(piece, encoder) for encoder in range(len(self.tokenizers)))
            if room < 0:
                return "".join(each.text for each in pieces[index:]).strip()
        return ""

    def _length(self, piece: Piece, encoder: int) -> int:
        if piece.embedding:  # one that is not loaded yet counts as a word
            vectors = self.embeddings.get(piece.text)
            return 1 if vectors is None else len(vectors[encoder])
        return len(self.tokenizers[encoder].ids(piece.text))

    def forget(self) -> None:
        """Drop cached encodings, after a change of weights or before timing."""
        self._kept.clear()

    def chunks(self, words: Sequence[Wording], style: PromptStyle) -> list[tuple[Chunk, ...]]:
        """The chunks of one wording for all encoders, or of one for each, in equal numbers."""
        everyone = tuple(words) if len(words) > 1 else tuple(words) * len(self.tokenizers)
        found = []
        for index, (tokenizer, wording) in enumerate(zip(self.tokenizers, everyone, strict=True)):

            def vectors(name: str, encoder: int = index) -> int:
                return len(self.embeddings(name)[encoder])

            found.append(divide(self.embeddings.split(wording), tokenizer, style, vectors))
        most = max(map(len, found))
        return [
            each + (empty(tokenizer),) * (most - len(each))
            for each, tokenizer in zip(found, self.tokenizers, strict=True)
        ]

    def _course(
        self,
        terms: Sequence[Term],
        style: PromptStyle,
        settings: TextSettings,
        layer: int | None,
        score: float = HIGH_SCORE,
    ) -> Course:
        steps = max(len(settings.sigmas) - 1, 1)
        schedules = [dict(term.schedule(steps)) for term in terms]
        starts = sorted(set().union(*schedules))
        stages = []
        for start, following in zip(starts, [*starts[1:], None], strict=True):
            words = tuple(term.at(start, steps) for term in terms)
            floor = -1.0 if following is None else settings.sigmas[following]
            encoded = self._encoded(words, style, layer)
            stages.append((floor, self._conditioning(encoded, settings.sizes, score)))
        return Course(tuple(stages), terms[0].weight)

    def _conditioning(
        self, encoded: Encoded, sizes: Sizes, score: float = HIGH_SCORE
    ) -> Conditioning:
        if self.config.conditioning == "text":
            return Conditioning(encoded.context)
        (width, height), (left, top) = sizes.original, sizes.crop
        last = (
            [sizes.target[1], sizes.target[0]] if self.config.conditioning == "sizes" else [score]
        )
        ids = [[height, width, top, left, *last]]
        time_ids = torch.tensor(ids, dtype=torch.float32, device=encoded.context.device)
        return Conditioning(encoded.context, pooled=encoded.pooled, time_ids=time_ids)

    def _encoded(
        self, words: tuple[Wording, ...] | None, style: PromptStyle, layer: int | None
    ) -> Encoded:
        key = (words, style, layer)
        if key not in self._kept:
            self._kept[key] = self._encode(words, style, layer)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _encode(
        self, words: Sequence[Wording] | None, style: PromptStyle, layer: int | None
    ) -> Encoded:
        layer = self.config.text_layer if layer is None else layer
        chunks = self.chunks(_plain("") if words is None else words, style)
        contexts, pooled = [], None
        for index, each in enumerate(chunks):
            reader = _Reader(self, index, layer)
            outputs = weighting.weigh(each, style, reader)
            contexts.append(torch.cat([output.context for output in outputs], dim=1))
            # Only the last encoder of SDXL has a pooled output that its U-Net knows.
            pooled = outputs[0].pooled
        context = torch.cat(contexts, dim=-1)
        assert pooled is not None
        if words is None and self.config.zero_empty_prompt:
            return Encoded(torch.zeros_like(context), torch.zeros_like(pooled))
        return Encoded(context, pooled)


class _Reader:
    """One encoder and its embeddings, as `weighting` calls it."""

    def __init__(self, conditioner: Conditioner, index: int, layer: int) -> None:
        self._conditioner, self._index, self._layer = conditioner, index, layer

    def __call__(self, chunk: Chunk, hidden: Sequence[bool] | None = None) -> ClipTextOutput:
        encoder = self._conditioner.encoders[self._index]
        device = next(encoder.parameters()).device
        vectors = {
            position: self._conditioner.embeddings(token.name)[self._index][token.index]
            for position, token in enumerate(chunk.tokens)
            if isinstance(token, Vector)
        }
        output: ClipTextOutput = encoder(
            torch.tensor([chunk.ids], device=device),
            torch.tensor([chunk.end], device=device),
            self._layer,
            vectors=vectors,
            hidden=None if hidden is None else torch.tensor(hidden, device=device),
        )
        return output

    def empty(self) -> Chunk:
        return empty(self._conditioner.tokenizers[self._index])


def _plain(prompt: str) -> tuple[Wording, ...]:
    return (((Piece(prompt),),),)
