"""Learned embeddings in prompts: find their names, and look up their vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from diffgen.errors import UsageError, did_you_mean, shown
from diffgen.text.prompt import Piece, Wording

EXPLICIT = r"(?<!\w)embedding:(?P<given>[^\s,()\[\]:|<>\\]{1,300})"


class Embeddings:
    """Vectors by name, one tensor (n, D) for each text encoder; names ignore case.

    A name counts as a word of its own, or after `embedding:`.
    """

    def __init__(self, vectors: Mapping[str, Sequence[Tensor]]) -> None:
        self._vectors = {name.casefold(): tuple(each) for name, each in vectors.items()}
        self._names = tuple(vectors)
        bare = sorted(map(re.escape, vectors), key=len, reverse=True)
        self._pattern = re.compile(
            "|".join([EXPLICIT, *(rf"(?<![\w-]){name}(?![\w-])" for name in bare)]), re.IGNORECASE
        )

    def __call__(self, name: str) -> Sequence[Tensor]:
        """The vectors of a name. Raises UsageError, with similar names."""
        found = self._vectors.get(name.casefold())
        if found is None:
            hint = did_you_mean(name, self._names)
            raise UsageError(f"there is no embedding {shown(name)}{hint}")
        return found

    def split(self, wording: Wording) -> Wording:
        """Split the names of embeddings off a wording, as pieces of their own."""
        if not self._vectors:
            return wording
        return tuple(
            tuple(each for piece in part for each in self._split(piece)) for part in wording
        )

    def _split(self, piece: Piece) -> Iterator[Piece]:
        if piece.embedding:
            yield piece
            return
        end = 0
        for match in self._pattern.finditer(piece.text):
            if before := piece.text[end : match.start()]:
                yield Piece(before, piece.weight)
            given = match["given"]
            # Punctuation after a name is not part of it.
            name = (
                given
                if given is None or given.casefold() in self._vectors
                else given.rstrip(".;!?")
            )
            yield Piece(match[0] if name is None else name, piece.weight, embedding=True)
            end = match.end() - (len(given) - len(name) if given and name else 0)
        if rest := piece.text[end:]:
            yield Piece(rest, piece.weight)
