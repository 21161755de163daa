"""Learned embeddings in prompts: find their names, and look up their vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from diffgen.errors import UsageError, did_you_mean, shown
from diffgen.text.prompt import Piece, Wording

if TYPE_CHECKING:
    from torch import Tensor

EXPLICIT = r"(?<!\w)embedding:(?P<given>[^\s,()\[\]:|<>\\]{1,300})"
ENDS = ".;!?"  # punctuation after a name is not part of it
_ASKED = re.compile(EXPLICIT, re.IGNORECASE)


def asked_for(text: str) -> list[str]:
    """The names that stand behind `embedding:` in a prompt, each once."""
    return list(dict.fromkeys(match["given"] for match in _ASKED.finditer(text)))


class Embeddings:
    """Vectors by name, one tensor (n, D) for each text encoder; names ignore case.

    A name counts as a word of its own, or after `embedding:`; the `asked` ones only there.
    """

    def __init__(
        self,
        vectors: Mapping[str, Sequence[Tensor]],
        asked: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> None:
        everything = {**(asked or {}), **vectors}
        self._vectors = {name.casefold(): tuple(each) for name, each in everything.items()}
        self._names = tuple(everything)
        bare = sorted(map(re.escape, vectors), key=len, reverse=True)
        self._pattern = re.compile(
            "|".join([EXPLICIT, *(rf"(?<![\w-]){name}(?![\w-])" for name in bare)]), re.IGNORECASE
        )

    def __call__(self, name: str) -> Sequence[Tensor]:
        """The vectors of a name. Raises UsageError, with similar names."""
        found = self.get(name)
        if found is None:
            hint = did_you_mean(name, self._names)
            raise UsageError(f"there is no embedding {shown(name)}{hint}")
        return found

    def get(self, name: str) -> Sequence[Tensor] | None:
        """The vectors of a name that may be none."""
        return self._vectors.get(self._named(name).casefold())

    def _named(self, given: str) -> str:
        return given if given.casefold() in self._vectors else given.rstrip(ENDS)

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
            name = match[0] if given is None else self._named(given)
            yield Piece(name, piece.weight, embedding=True)
            end = match.end() - (len(given) - len(name) if given else 0)
        if rest := piece.text[end:]:
            yield Piece(rest, piece.weight)
