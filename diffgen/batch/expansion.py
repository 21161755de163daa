"""Prompts with choices: `{a|b|c}`, `{2$$a|b|c}` and `__wildcard__`, parsed by dynamicprompts.

The library only gets the choices. By itself it would take `#` and `//` for comments, remove braces
without a choice, leave a wildcard without a file in the prompt, and draw all choices from one
stream of random numbers, so that each depends on those before it. Here a choice is a function of
the picture's seed and of its own text.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from diffgen.errors import UsageError, shown

if TYPE_CHECKING:
    from diffgen.batch.wildcards import Wildcards

MOST_COMBINATIONS = 1_000_000  # of one prompt
WILDCARD = re.compile(r"(?<!\w)__[~!@]?([\w/*.-]{1,100}?)__(?!\w)")
# What the library would read otherwise than as text stands for itself as one of these, meanwhile.
STAND_INS = {char: chr(0xE000 + i) for i, char in enumerate("#/$%{}|_\\:,~!@()")}
ORIGINALS = {stand_in: char for char, stand_in in STAND_INS.items()}
BOUND = re.compile(r"\s*[~!@]?\s*(\d+|\d+-\d*|-\d+)\$\$")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt: text, or a choice in the library's grammar."""

    text: str
    is_choice: bool


class Expander:
    """Expands templates into prompts, with the wildcard files of one folder."""

    def __init__(self, wildcards: Path | None = None) -> None:
        """Raises UsageError if the folder does not exist."""
        if wildcards is not None and not wildcards.is_dir():
            raise UsageError(f"--wildcards: there is no folder {wildcards}")
        self._folder = wildcards
        self._known: set[str] = set()  # wildcards that are there, and all that they lead to

    def has_choices(self, template: str) -> bool:
        """Whether a template stands for other than exactly one prompt."""
        return any(piece.is_choice for piece in self._pieces(template))

    def check(self, template: str) -> None:
        """Raise UsageError for a choice that cannot be read, and for a wildcard without a file, be
        it one that another's lines lead to.
        """
        if self._folder is not None:
            self._check_wildcards(template)
        self.choose(template, 0)

    def refuse(self, towards: str | None) -> None:
        """Raise UsageError for choices in a prompt for which no seed chooses."""
        if towards and self.has_choices(towards):
            raise UsageError(f"the prompt to go towards is one, without choices: {shown(towards)}")

    def choose(self, template: str, seed: int) -> str:
        """The prompt of a picture with this seed. Raises UsageError."""
        seen: Counter[str] = Counter()
        texts = []
        for piece in self._pieces(template):
            seen[piece.text] += 1
            key = f"{seed}/{piece.text}/{seen[piece.text]}"
            texts.append(self._one(piece, key) if piece.is_choice else piece.text)
        return "".join(texts)

    def combinations(self, template: str) -> Iterator[str]:
        """Every prompt of a template, the last choice varying fastest. Raises UsageError."""
        lists = [
            self._all(piece) if piece.is_choice else [piece.text]
            for piece in self._pieces(template)
        ]
        total = 1
        for each in lists:
            total *= len(each)
        if total > MOST_COMBINATIONS:
            raise UsageError(f"{shown(template)} has more than {MOST_COMBINATIONS} combinations")
        yield from map("".join, product(*lists))

    def _check_wildcards(self, template: str) -> None:
        ahead: list[str] = WILDCARD.findall(template)
        found: set[str] = set()
        while ahead:
            if (name := ahead.pop()) not in found | self._known:
                found.add(name)
                lines = (item.content for item in self._manager.items(name))
                ahead += (inner for line in lines for inner in WILDCARD.findall(line))
        self._known |= found

    def _pieces(self, template: str) -> list[Piece]:
        if "{" not in template and (self._folder is None or "__" not in template):
            return [Piece(template, False)]
        pieces: list[Piece] = []
        position = 0
        for start, end in self._choices(template):
            pieces.append(Piece(_unescaped(template[position:start]), False))
            pieces.append(Piece(template[start:end], True))
            position = end
        return [*pieces, Piece(_unescaped(template[position:]), False)]

    def _choices(self, template: str) -> Iterator[tuple[int, int]]:
        """The begin and end of each outermost choice."""
        pairs = _pairs(template)
        position = 0
        while position < len(template):
            wildcard = WILDCARD.match(template, position) if self._folder else None
            if position in pairs and _is_choice(template, position, pairs):
                yield position, pairs[position] + 1
                position = pairs[position]
            elif wildcard:
                yield wildcard.span()
                position = wildcard.end() - 1
            position += 1

    def _one(self, piece: Piece, key: str) -> str:
        return self._sampled(piece, "RANDOM", Random(key), 1)[0]

    def _all(self, piece: Piece) -> list[str]:
        found = self._sampled(piece, "COMBINATORIAL", Random(piece.text), MOST_COMBINATIONS + 1)
        return list(dict.fromkeys(found))

    def _sampled(self, piece: Piece, method: str, random: Random, at_most: int) -> list[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses deprecated names of its parser
            return self._sampled_quietly(piece, method, random, at_most)

    def _sampled_quietly(
        self, piece: Piece, method: str, random: Random, at_most: int
    ) -> list[str]:
        from dynamicprompts.enums import SamplingMethod
        from dynamicprompts.sampling_context import SamplingContext

        self._manager.weighted = method == "RANDOM"
        context = SamplingContext(
            default_sampling_method=SamplingMethod[method],
            wildcard_manager=self._manager,
            rand=random,
        )
        try:
            samples = context.sample_prompts(self._encoded(piece.text), at_most)
            found = [_decoded(str(sample)) for sample in islice(samples, at_most)]
        except UsageError:
            raise
        except RecursionError:
            raise UsageError(f"the choice {shown(piece.text)} leads back to itself") from None
        except Exception as error:  # its parser raises anything
            raise UsageError(f"the choice {shown(piece.text)} cannot be read") from error
        if not found:
            raise UsageError(f"the choice {shown(piece.text)} has nothing to choose")
        return found

    @cached_property
    def _manager(self) -> Wildcards:
        from diffgen.batch.wildcards import Wildcards

        return Wildcards(self._folder, self._encoded)

    def _encoded(self, text: str) -> str:
        """Text in the library's grammar in which only choices and wildcards have a meaning."""
        kept: set[int] = set()
        pairs = _pairs(text)
        for start, end in pairs.items():
            if _is_choice(text, start, pairs):
                kept |= {start, end, *_bars(text, start, pairs)}
                if bound := BOUND.match(text, start + 1):
                    kept |= _bound_characters(text, bound.end(), end) | {*range(*bound.span())}
        if self._folder:
            for wildcard in WILDCARD.finditer(text):
                kept |= {*range(*wildcard.span())}
        return _substituted(text, kept)


def _substituted(text: str, kept: set[int]) -> str:
    found, position = [], 0
    while position < len(text):
        char = text[position]
        if char == "\\" and text[position + 1 : position + 2] in tuple("{}|_"):
            position += 1
            found.append(STAND_INS[text[position]])
        elif char == ":" and text[position - 1 : position + 2].count(":") == 2:
            found.append(char)  # of a weight, "0.5::red"
        else:
            found.append(char if position in kept else STAND_INS.get(char, char))
        position += 1
    return "".join(found)


def _pairs(text: str) -> dict[int, int]:
    """Map each brace to the one that closes it; unmatched ones are text."""
    pairs: dict[int, int] = {}
    open_braces: list[int] = []
    position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] == "{":
            open_braces.append(position)
        elif text[position] == "}" and open_braces:
            pairs[open_braces.pop()] = position
        position += 1
    return pairs


def _bars(text: str, start: int, pairs: dict[int, int]) -> Iterator[int]:
    """The separators between a pair's options, without those of nested braces."""
    position, end = start + 1, pairs[start]
    while position < end:
        if text[position] == "\\":
            position += 1
        elif position in pairs:
            position = pairs[position]
        elif text[position] == "|":
            yield position
        position += 1


def _is_choice(text: str, start: int, pairs: dict[int, int]) -> bool:
    bounded = BOUND.match(text, start + 1, pairs[start])
    return bounded is not None or next(_bars(text, start, pairs), None) is not None


def _bound_characters(text: str, start: int, end: int) -> set[int]:
    """The `$$` after a separator: `{2$$ and $$a|b}`."""
    closing = text.find("$$", start, end)
    between = text[start:closing]
    return {closing, closing + 1} if closing > 0 and not set(between) & set("{}|") else set()


def _unescaped(text: str) -> str:
    return re.sub(r"\\([{}|])", r"\1", text)


def _decoded(text: str) -> str:
    return "".join(ORIGINALS.get(char, char) for char in text)
