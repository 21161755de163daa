"""Split the wordings of a prompt into chunks of tokens, each as long as the text encoder takes.

The styles differ only for prompts longer than one chunk. A1111 ends a chunk at the last comma if
that is among its last 20 tokens. ComfyUI keeps stretches of fewer than 8 tokens of one weight
whole. compel cuts where the chunk is full. `plain` has one chunk and cuts the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from diffgen.text.prompt import Piece, Wording
from diffgen.text.tokenizer import Tokenizer
from diffgen.types import PromptStyle

BACKTRACK = 20  # tokens that A1111 looks back for a comma
SHORT = 8  # length from which ComfyUI divides a stretch


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector of a learned embedding, in place of a token."""

    name: str
    index: int


Token: TypeAlias = int | Vector


class Weighted(NamedTuple):
    """A token and its weight."""

    token: Token
    weight: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """One input of the text encoder: start, prompt, end, padding, and a weight for each token.

    `end` is the index of the first end token.
    """

    tokens: tuple[Token, ...]
    weights: tuple[float, ...]
    end: int

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids, with the end token's in place of embedding vectors."""
        end = self.tokens[self.end]
        assert isinstance(end, int)
        return tuple(end if isinstance(token, Vector) else token for token in self.tokens)

    @property
    def weighted(self) -> bool:
        """Whether any token's weight differs from 1."""
        return any(weight != 1.0 for weight in self.weights)


# Tokens kept together: a piece of one weight, or the vectors of an embedding.
_Group: TypeAlias = Sequence[Weighted]
_Lengths: TypeAlias = Callable[[str], int]


def divide(
    wording: Wording, tokenizer: Tokenizer, style: PromptStyle, vectors: _Lengths
) -> tuple[Chunk, ...]:
    """Divide a wording into at least one chunk; `vectors` gives an embedding's number of vectors.

    Raises UsageError for text that is not Unicode and for an unknown embedding.
    """
    if style == "plain" and any(piece.embedding for part in wording for piece in part):
        groups = [_group(piece, tokenizer, vectors) for part in wording for piece in part]
        every = [each for group in groups for each in group]
        return (_finished(every[: tokenizer.room], tokenizer),)
    if style == "plain":
        tokens = tokenizer.encode("".join(piece.text for part in wording for piece in part))
        return (Chunk(tokens.ids, (1.0,) * len(tokens.ids), tokens.end),)
    fill = {"a1111": _fill_to_commas, "comfy": _fill_by_groups, "compel": _fill}[style]
    contents: list[list[Weighted]] = []
    for part in wording:
        groups = [_group(piece, tokenizer, vectors) for piece in part]
        contents += fill([group for group in groups if group], tokenizer)
    if len(contents) > 1 and not contents[-1]:
        contents.pop()  # nothing follows the last BREAK
    return tuple(_finished(content, tokenizer) for content in contents)


def empty(tokenizer: Tokenizer) -> Chunk:
    """The chunk of a prompt without words."""
    return _finished([], tokenizer)


def _group(piece: Piece, tokenizer: Tokenizer, vectors: _Lengths) -> _Group:
    if piece.embedding:
        count = vectors(piece.text)
        return [Weighted(Vector(piece.text, index), piece.weight) for index in range(count)]
    return [Weighted(token, piece.weight) for token in tokenizer.ids(piece.text)]


def _finished(content: Sequence[Weighted], tokenizer: Tokenizer) -> Chunk:
    padding = tokenizer.room - len(content)
    tokens = [tokenizer.start, *(each.token for each in content), tokenizer.end]
    weights = [1.0, *(each.weight for each in content), 1.0]
    return Chunk(
        (*tokens, *[tokenizer.pad] * padding),
        (*weights, *[1.0] * padding),
        tokens.index(tokenizer.end),
    )


def _fill(groups: Sequence[_Group], tokenizer: Tokenizer) -> Iterator[list[Weighted]]:
    every = [each for group in groups for each in group]
    for start in range(0, max(len(every), 1), tokenizer.room):
        yield every[start : start + tokenizer.room]


def _fill_to_commas(groups: Sequence[_Group], tokenizer: Tokenizer) -> Iterator[list[Weighted]]:
    room, comma = tokenizer.room, -1
    content: list[Weighted] = []
    for group in groups:
        if isinstance(group[0].token, Vector) and len(content) < room < len(content) + len(group):
            yield content  # vectors of an embedding stay together
            content, comma = [], -1
        for each in group:
            if each.token == tokenizer.comma:
                comma = len(content)
            elif len(content) == room and comma >= 0 and room - comma <= BACKTRACK:
                yield content[: comma + 1]
                content, comma = content[comma + 1 :], -1
            if len(content) == room:
                yield content
                content, comma = [], -1
            content.append(each)
    yield content


def _fill_by_groups(groups: Sequence[_Group], tokenizer: Tokenizer) -> Iterator[list[Weighted]]:
    room = tokenizer.room
    content: list[Weighted] = []
    for group in groups:
        rest = list(group)
        long = len(rest) >= min(SHORT, room + 1)
        while len(content) + len(rest) > room:
            kept = room - len(content) if long else 0
            yield content + rest[:kept]
            content, rest = [], rest[kept:]
        content += rest
    yield content
