"""Words of a prompt that a small model never learned, and suggestions instead.

A small model may have a `words.json` beside its model_index.json: all words of its training
captions, related words for some others, and the nouns of which each caption had one. Large models
have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from diffgen.errors import one_line
from diffgen.jsonfile import JsonObject

FILE = "words.json"
SHOWN_NEAR = 2  # words
ALIKE = 0.8  # similarity of two spellings, from 0 to 1; difflib's ratio

# English function words, which name nothing visible.
_LITTLE = """
a about above across after again against all along also always am among amongst an and any
are around as at away be because been before behind being below beneath beside between beyond
both but by can could did do does doing done down during each either else ever every for from
get gets getting go goes going got had has have having he her here hers herself him himself
his how i if in inside into is it its itself just like made makes may me might mine more most
few lot lots many several much must my near nearby neither next no nor not nothing of off on onto or other others our
out outside over own past per please quite rather really shall she should side so some
something such than that the their them then there these they this those through throughout
till to together too toward towards underneath until up upon us very via was we were what when
where which while who whom whose why will with within without would yet you your
"""
LITTLE = frozenset(_LITTLE.split())
_WORD = re.compile(r"[^\W\d_]{2,}")
# Commands of other programs, and contractions: 's, or all of "isn't".
_NO_WORDS = re.compile(
    r"<[^<>]*>|\b(?:BREAK|AND)\b|\bembedding:\S+|__[\w/*-]+__"
    r"|['\N{RIGHT SINGLE QUOTATION MARK}]s\b"
    r"|\b\w+['\N{RIGHT SINGLE QUOTATION MARK}](?:t|re|ve|ll|d|m)\b",
)
_ENDINGS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""), ("", "s"))


@dataclass(frozen=True, slots=True)
class KnownWords:
    """The words a model learned, in lower case; `near` relates others to them.

    Each text that it learned from had a word of `things`, if there are any.
    """

    words: frozenset[str]
    near: Mapping[str, tuple[str, ...]]
    things: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the list in a model's folder; None if there is none. Raises ConfigError."""
        path = folder / FILE
        if not path.is_file():
            return None
        table = JsonObject.read(path)
        near = JsonObject(path, table.table("near"))
        return cls(
            frozenset(table.many_or("words", str, ())),
            {word: near.many_or(word, str, ()) for word in near.data},
            frozenset(table.many_or("things", str, ())),
        )

    def unknown(self, texts: Iterable[str]) -> Iterator[str]:
        """The unlearned words of texts, in lower case, each once.

        A plural counts as known with its singular, and vice versa.
        """
        seen: set[str] = set()
        for text in texts:
            for word in _words(text):
                forms = set(_forms(word))
                if word not in LITTLE and seen.isdisjoint(forms) and self.words.isdisjoint(forms):
                    yield word
                seen |= forms

    def names_nothing(self, text: str) -> bool:
        """Whether a text has words, all of them learned, but none of `things`."""
        words = _words(text)
        if not self.things or not words or any(self.unknown([text])):
            return False
        return self.things.isdisjoint(words)

    def nearest(self, word: str) -> tuple[str, ...]:
        """Words to say instead: listed as related, or else spelled similarly."""
        for form in _forms(word):
            if form in self.near:
                return self.near[form][:SHOWN_NEAR]
        long = (known for known in self.words if len(known) > 2)
        return tuple(get_close_matches(word, sorted(long), n=1, cutoff=ALIKE))

    def described(self, word: str) -> str:
        """`"pony" (near it: horse)`."""
        near = ", ".join(self.nearest(word))
        return f'"{one_line(word)}"' + (f" (near it: {near})" if near else "")


def _words(text: str) -> list[str]:
    return _WORD.findall(_NO_WORDS.sub(" ", text).lower())


def _forms(word: str) -> Iterator[str]:
    """The word, and its possible singulars or plurals."""
    yield word
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            yield word.removesuffix(ending) + instead
