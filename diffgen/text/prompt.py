r"""What a prompt asks for: its words with weights, over the run of steps.

    prompt      text { "AND" text }                   several prompts at once (arXiv:2206.01714)
    text        any of these, and words
    (x)         weight 1.1, multiplied where brackets nest
    [x]         weight 1 / 1.1
    (x:1.3)     weight 1.3; in ComfyUI's style the innermost number alone counts
    x++ (x)-- (x)1.3   in compel's style: 1.1 for a plus, 0.9 for a minus, multiplied, or the number;
                brackets alone weigh nothing
    BREAK       what follows begins the next chunk of tokens
    [x:y:when]  x, and y after step `when`; with a point, `when` is a share of the steps
    [x:when]    nothing, and x after step `when`
    [x::when]   x until step `when`, then nothing
    [x|y|z]     x in the first step, y in the second, z in the third, x in the fourth, ...
    x AND y:0.5 weights of whole prompts, 1 where none is given
    <lora:name:w>   a LoRA with weight w, by default 1; not a word of the prompt
    <lora:name:w:u> the same with weight u in the U-Net, w in the text encoders; more: `lora_tags`
    embedding:name  a learned embedding
    \( \) \[ \] \\  the characters themselves

A bracket without a partner is a character like others, and noted. Weights are from -10 to 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from diffgen.types import PromptStyle


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text with one weight, or the name of a learned embedding."""

    text: str
    weight: float = 1.0
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class Break:
    """End the current chunk."""


@dataclass(frozen=True, slots=True)
class Edited:
    """`before` until a step of the run, then `after`."""

    before: Nodes
    after: Nodes
    when: float
    share: bool  # `when` is a share of the steps, else a number of them

    def chosen(self, step: int, steps: int) -> Nodes:
        """The alternative in effect at a step, counted from 0."""
        first = int(self.when * steps) if self.share else int(self.when)
        return self.before if step < first else self.after


@dataclass(frozen=True, slots=True)
class Alternated:
    """One alternative per step, in rotation."""

    options: tuple[Nodes, ...]

    def chosen(self, step: int, steps: int) -> Nodes:
        """The alternative in effect at a step, counted from 0."""
        return self.options[step % len(self.options)]


Node: TypeAlias = Piece | Break | Edited | Alternated
Nodes: TypeAlias = tuple[Node, ...]
# The wording of one step: pieces, divided by BREAK.
Wording: TypeAlias = tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True, slots=True)
class Term:
    """One of the prompts joined by AND."""

    nodes: Nodes
    weight: float = 1.0

    def at(self, step: int, steps: int) -> Wording:
        """The wording of a step, counted from 0, with neighbours of one weight joined."""
        parts: list[list[Piece]] = [[]]
        for node in _leaves(self.nodes, step, steps):
            if isinstance(node, Break):
                parts.append([])
            elif _joinable(parts[-1], node):
                last = parts[-1][-1]
                parts[-1][-1] = replace(last, text=last.text + node.text)
            else:
                parts[-1].append(node)
        return tuple(map(tuple, parts))

    def schedule(self, steps: int) -> tuple[tuple[int, Wording], ...]:
        """The wordings of a run, each with its first step."""
        if not any(isinstance(node, Edited | Alternated) for node in self.nodes):
            return ((0, self.at(0, steps)),)
        found: list[tuple[int, Wording]] = []
        for step in range(max(steps, 1)):
            wording = self.at(step, steps)
            if not found or wording != found[-1][1]:
                found.append((step, wording))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A LoRA asked for in a prompt; `unet` is the U-Net's own weight, by default the same.

    `lbw`, `start` and `stop` are as in `LoraRef`.
    """

    name: str
    weight: float = 1.0
    unet: float | None = None
    lbw: tuple[float, ...] | None = None
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A parsed prompt. `notes` list plain text that looks like syntax."""

    text: str
    style: PromptStyle
    terms: tuple[Term, ...]
    loras: tuple[LoraTag, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the prompt is one unweighted text, constant over all steps."""
        if len(self.terms) > 1 or self.loras or len(self.terms[0].schedule(2)) > 1:
            return False
        return self.terms[0].at(0, 1) in (((Piece(self.text),),), (() if not self.text else None,))


def _leaves(nodes: Nodes, step: int, steps: int) -> Iterator[Piece | Break]:
    for node in nodes:
        if isinstance(node, Edited | Alternated):
            yield from _leaves(node.chosen(step, steps), step, steps)
        else:
            yield node


def _joinable(part: list[Piece], piece: Piece) -> bool:
    return (
        bool(part)
        and part[-1].weight == piece.weight
        and not (part[-1].embedding or piece.embedding)
    )
