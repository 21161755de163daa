"""Parser for the grammar in `text.prompt`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from diffgen.errors import UsageError, shown, some
from diffgen.text.lora_tags import parse_lora_tag
from diffgen.text.prompt import (
    Alternated,
    Break,
    Edited,
    Node,
    Nodes,
    Piece,
    Prompt,
    Term,
)
from diffgen.types import PromptStyle

MAX_WEIGHT = 10.0
MAX_DEPTH = 50
MORE, LESS = 1.1, 1 / 1.1

_NAME = r"[^\s,()\[\]:|<>\\]"
# Every repetition ends at a character that begins none, so that parsing takes linear time.
_SPECIAL = re.compile(
    r"(?P<escaped>\\[()\[\]\\])"
    r"|<(?:lora|lyco):(?P<lora>[^<>]{1,300})>"
    r"|(?P<BREAK>\bBREAK\b)|(?P<AND>\bAND\b)"
    rf"|(?<!\w)embedding:(?P<embedding>{_NAME}{{0,299}}(?!\.){_NAME})"
    r"|(?P<symbol>[()\[\]:|])"
)
_NUMBER = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?(?:nan|inf))\s*", re.IGNORECASE
)
_PARTNER = {")": "(", "]": "["}
# compel's: signs or a number right behind a bracket, signs right behind a word.
PLUS, MINUS = 1.1, 0.9
_AFTER_BRACKET = re.compile(r"\++|-+|\d+\.?\d*|\.\d+")
_WORD = re.compile(
    r"(?P<word>(?:\\[-+]|[^\s()\",.=+-]|[-+](?=[^\s()\",.=+-]))++)(?P<signs>\++|-+)?"
)


class _Item(NamedTuple):
    """A stretch of the prompt: plain text, or one of the kinds of `_SPECIAL`."""

    kind: str
    text: str
    position: int


def parse(text: str, style: PromptStyle = "a1111", *, negative: bool = False) -> Prompt:
    """Parse a prompt by the grammar in `text.prompt`; the style `plain` takes all of it as words.

    A negative prompt has no AND and no LoRAs: they count as words, with a note. Raises UsageError
    for weights that are not numbers from -10 to 10 and for brackets nested more than 50 deep.
    """
    if style == "plain":
        return Prompt(text, style, (Term((Piece(text),)),))
    return _Parser(text, style, negative).prompt()


class _Parser:
    def __init__(self, text: str, style: PromptStyle, negative: bool) -> None:
        self._text, self._style, self._negative = text, style, negative
        self._items = list(_items(text))
        self._partners = _matched(self._items)
        self._literal: list[str] = []  # kinds of syntax taken as words
        # In compel's style, the weight behind a bracket by where that opens.
        self._behind = dict(self._take_weights()) if style == "compel" else {}

    def _take_weights(self) -> Iterator[tuple[int, float]]:
        """Cut the weights behind brackets off the text that follows."""
        for index, item in enumerate(self._items[1:], 1):
            closed = self._items[index - 1]
            if item.kind != "text" or not (closed.kind == "symbol" and closed.text == ")"):
                continue
            match = _AFTER_BRACKET.match(item.text)
            if match and index - 1 in self._partners:
                rest = item.position + match.end()
                self._items[index] = _Item("text", item.text[match.end() :], rest)
                yield self._partners[index - 1], _compel_weight(match[0])

    def prompt(self) -> Prompt:
        terms = tuple(self._terms())
        unmatched = [
            f'"{item.text}" at character {item.position + 1}'
            for index, item in enumerate(self._items)
            if _is_bracket(item) and index not in self._partners
        ]
        notes = [f"unbalanced brackets, {some(unmatched)}"] if unmatched else []
        if self._literal:
            notes.append(some(list(dict.fromkeys(self._literal))))
        loras = (
            ()
            if self._negative
            else tuple(parse_lora_tag(item.text) for item in self._items if item.kind == "lora")
        )
        return Prompt(self._text, self._style, terms, loras, tuple(notes))

    def _terms(self) -> Iterator[Term]:
        ends = [] if self._negative else self._at_top(0, len(self._items), "AND")
        starts = [0, *(end + 1 for end in ends)]
        for start, end in zip(starts, [*ends, len(self._items)], strict=True):
            weight = 1.0
            colons = self._at_top(start, end, ":") if ends else []
            if colons and (number := self._number(colons[-1] + 1, end)) is not None:
                weight, end = self._weight(number, start, end), colons[-1]
            yield Term(self._nodes(start, end, 1.0, 0), weight)

    def _nodes(self, start: int, end: int, weight: float, depth: int) -> Nodes:
        if depth > MAX_DEPTH:
            raise UsageError(f"brackets of a prompt nest at most {MAX_DEPTH} deep")
        nodes: list[Node] = []
        index = start
        while index < end:
            item = self._items[index]
            if item.text in ("(", "[") and index in self._partners and item.kind == "symbol":
                close = self._partners[index]
                group = self._round if item.text == "(" else self._square
                nodes += group(index + 1, close, weight, depth + 1)
                index = close + 1
            else:
                nodes += self._leaf(item, weight, depth)
                index += 1
        return tuple(nodes)

    def _leaf(self, item: _Item, weight: float, depth: int) -> Nodes:
        if item.kind == "BREAK":
            return (Break(),)
        if item.kind == "embedding":
            return (Piece(item.text, weight, embedding=True),)
        if item.kind == "lora" and not self._negative:
            return ()
        text = f"<lora:{item.text}>" if item.kind == "lora" else item.text
        if item.kind in ("AND", "lora"):
            where = "the negative prompt" if self._negative else "brackets"
            self._literal.append(f"{text} in {where}")
        if item.kind == "text" and self._style == "compel":
            return tuple(self._signed(text, weight))
        return (Piece(text, weight),)

    def _signed(self, text: str, weight: float) -> Iterator[Piece]:
        """The words of a text, those with signs behind them by themselves."""
        done = 0
        for match in _WORD.finditer(text):
            if match["signs"] is None:
                continue
            if match.start() > done:
                yield Piece(text[done : match.start()], weight)
            own = self._bounded(weight * _compel_weight(match["signs"]), shown(match[0]))
            yield Piece(match["word"], own)
            done = match.end()
        if done < len(text):
            yield Piece(text[done:], weight)

    def _round(self, start: int, end: int, weight: float, depth: int) -> Nodes:
        colons = self._at_top(start, end, ":")
        number = self._number(colons[-1] + 1, end) if colons else None
        if self._style == "compel":
            weight = self._within(weight * self._behind.get(start - 1, 1.0), start, end)
        if number is None:
            more = 1.0 if self._style == "compel" else MORE
            inner = self._within(weight * more, start, end)
            return self._nodes(start, end, inner, depth)
        given = self._weight(number, start, end)
        product = given if self._style == "comfy" else self._within(weight * given, start, end)
        return self._nodes(start, colons[-1], product, depth)

    def _square(self, start: int, end: int, weight: float, depth: int) -> Nodes:
        if bars := self._at_top(start, end, "|"):
            cuts = zip([start, *(bar + 1 for bar in bars)], [*bars, end], strict=True)
            return (Alternated(tuple(self._nodes(a, b, weight, depth) for a, b in cuts)),)
        colons = self._at_top(start, end, ":")
        number = self._number(colons[-1] + 1, end) if 1 <= len(colons) <= 2 else None
        if number is None:
            return self._nodes(start, end, weight * LESS, depth)
        when = _finite(number, self._source(start, end))
        parts = [self._nodes(start, colons[0], weight, depth)]
        parts += [self._nodes(a + 1, b, weight, depth) for a, b in pairwise(colons)]
        before, after = parts if len(parts) == 2 else ((), parts[0])
        return (Edited(before, after, when, "." in number),)

    def _at_top(self, start: int, end: int, text: str) -> list[int]:
        """The positions of a symbol or AND in a stretch, outside of nested brackets."""
        found = []
        index = start
        while index < end:
            item = self._items[index]
            if item.kind in ("symbol", "AND") and item.text == text:
                found.append(index)
            opens = item.kind == "symbol" and item.text in ("(", "[")
            index = self._partners.get(index, index) + 1 if opens else index + 1
        return found

    def _number(self, start: int, end: int) -> str | None:
        """The only number in a stretch's text, if that is all of it."""
        if end - start != 1 or self._items[start].kind != "text":
            return None
        match = _NUMBER.fullmatch(self._items[start].text)
        return match[1] if match else None

    def _weight(self, number: str, start: int, end: int) -> float:
        return self._within(float(number), start, end)

    def _within(self, weight: float, start: int, end: int) -> float:
        if abs(weight) <= MAX_WEIGHT:
            return weight
        return self._bounded(weight, self._source(start, end))

    def _bounded(self, weight: float, source: str) -> float:
        if not abs(weight) <= MAX_WEIGHT:
            raise UsageError(
                f"{source} has the weight {weight:g}, where weights are from "
                f"{-MAX_WEIGHT:g} to {MAX_WEIGHT:g}; \\( and \\) are brackets without a weight"
            )
        return weight

    def _source(self, start: int, end: int) -> str:
        stop = self._items[end].position if end < len(self._items) else len(self._text)
        begin = self._items[start].position if start < len(self._items) else stop
        return shown(self._text[begin:stop].strip())


def _items(text: str) -> Iterator[_Item]:
    done = 0
    for match in _SPECIAL.finditer(text):
        if match.start() > done:
            yield _Item("text", text[done : match.start()], done)
        kind = match.lastgroup or "text"
        said = match[kind]
        if kind == "escaped":
            kind, said = "text", said[1]
        yield _Item(kind, said, match.start())
        done = match.end()
    if done < len(text):
        yield _Item("text", text[done:], done)


def _is_bracket(item: _Item) -> bool:
    return item.kind == "symbol" and item.text in "()[]"


def _matched(items: list[_Item]) -> dict[int, int]:
    """Map each opening bracket to its closing one, and back.

    Unmatched brackets are left out, also those open inside another matched pair.
    """
    partners: dict[int, int] = {}
    opened: list[int] = []
    waiting = {"(": 0, "[": 0}
    for index, item in enumerate(items):
        if not _is_bracket(item):
            continue
        if item.text in waiting:
            opened.append(index)
            waiting[item.text] += 1
            continue
        if not waiting[_PARTNER[item.text]]:
            continue
        while True:
            other = opened.pop()
            waiting[items[other].text] -= 1
            if items[other].text == _PARTNER[item.text]:
                break
        partners |= {other: index, index: other}
    return partners


def _compel_weight(text: str) -> float:
    if text[0] in "+-":
        return float((PLUS if text[0] == "+" else MINUS) ** len(text))
    return float(text)


def _finite(number: str, source: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise UsageError(f"{source}: a step is a number, not {number}")
    return value
