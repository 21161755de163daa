"""The interpretation of a prompt, as plain values: for `diffgen show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from diffgen.text.chunks import Chunk, Vector, divide
from diffgen.text.prompt import Prompt, Term, Wording
from diffgen.text.tokenizer import Tokenizer


def explain(prompt: Prompt, tokenizer: Tokenizer, steps: int) -> dict[str, Any]:
    """Terms, the steps of each wording counted from 1, its chunks, tokens and weights.

    A learned embedding counts as one token, since its length is only known after loading. Raises
    UsageError for text that is not Unicode.
    """
    return {
        "prompt": prompt.text,
        "style": prompt.style,
        "steps": steps,
        "terms": [_term(term, prompt, tokenizer, steps) for term in prompt.terms],
        "loras": [asdict(tag) for tag in prompt.loras],
        "notes": list(prompt.notes),
        "cut": tokenizer.encode(prompt.text).cut if prompt.style == "plain" else "",
    }


def _term(term: Term, prompt: Prompt, tokenizer: Tokenizer, steps: int) -> dict[str, Any]:
    drawn: dict[Wording, list[int]] = {}
    schedule = term.schedule(steps)
    for (start, wording), end in zip(
        schedule, [*(start for start, _ in schedule[1:]), steps], strict=True
    ):
        drawn.setdefault(wording, []).extend(range(start + 1, end + 1))
    stages = [
        {
            "steps": numbers,
            "chunks": [
                _chunk(chunk, tokenizer)
                for chunk in divide(wording, tokenizer, prompt.style, lambda name: 1)
            ],
        }
        for wording, numbers in drawn.items()
    ]
    return {"weight": term.weight, "stages": stages}


def _chunk(chunk: Chunk, tokenizer: Tokenizer) -> dict[str, Any]:
    """The words of a chunk, without its start, end and padding tokens."""
    words = list(zip(chunk.tokens, chunk.weights, strict=True))[1 : chunk.end]
    runs = groupby(words, key=lambda word: word[1])
    return {
        "tokens": len(words),
        "ids": [token if isinstance(token, int) else None for token, _ in words],
        "pieces": [
            {"text": _text([token for token, _ in run], tokenizer), "weight": weight}
            for weight, run in runs
        ],
    }


def _text(tokens: Sequence[int | Vector], tokenizer: Tokenizer) -> str:
    """Tokens as readable words; case and spaces are the vocabulary's."""
    found = []
    for learned, run in groupby(tokens, key=lambda token: isinstance(token, Vector)):
        if learned:
            found += [f"embedding:{token.name}" for token in run if isinstance(token, Vector)]
        else:
            found.append(tokenizer.text([token for token in run if isinstance(token, int)]))
    return " ".join(found)
