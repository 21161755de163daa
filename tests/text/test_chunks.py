"""How long prompts are divided, by the rules of each program."""

from __future__ import annotations

import pytest
from small_encoder import END, START, tokenizer

from diffgen.errors import UsageError
from diffgen.text.chunks import Chunk, Vector, divide, empty
from diffgen.text.conditioner import NO_EMBEDDINGS
from diffgen.text.grammar import parse
from diffgen.types import PromptStyle

TOKENIZER = tokenizer()
A, COMMA = 264, 900  # "a" and ","


def chunks(text: str, style: PromptStyle = "a1111") -> tuple[Chunk, ...]:
    (term,) = parse(text, style).terms
    return divide(term.at(0, 1), TOKENIZER, style, {"two": 2, "many": 80}.__getitem__)


def lengths(text: str, style: PromptStyle = "a1111") -> list[int]:
    """Tokens of the prompt in each chunk."""
    return [chunk.end - 1 for chunk in chunks(text, style)]


def words(count: int) -> str:
    return "a " * count


@pytest.mark.parametrize("style", ["a1111", "comfy", "compel"])
@pytest.mark.parametrize(
    ("count", "expected"),
    [
        *((0, [0]), (1, [1]), (74, [74]), (75, [75]), (76, [75, 1])),
        *((150, [75, 75]), (151, [75, 75, 1]), (400, [75] * 5 + [25])),
    ],
)
def test_a_chunk_holds_75_tokens(style: PromptStyle, count: int, expected: list[int]) -> None:
    assert lengths(words(count), style) == expected
    for chunk in chunks(words(count), style):
        assert len(chunk.tokens) == len(chunk.weights) == 77
        assert chunk.tokens[0] == START
        assert set(chunk.tokens[1 : chunk.end]) <= {A}
        assert set(chunk.tokens[chunk.end :]) == {END}


def test_a_prompt_that_fits_is_that_of_the_tokenizer() -> None:
    text = "a red barn, at sunset! (x"
    (chunk,) = chunks(text)
    assert (chunk.ids, chunk.end) == (TOKENIZER.encode(text).ids, TOKENIZER.encode(text).end)
    assert not chunk.weighted
    assert empty(TOKENIZER).ids == TOKENIZER.encode("").ids


def test_plain_style_cuts() -> None:
    assert lengths(words(80), "plain") == [75]
    assert chunks("(a:1.2) BREAK", "plain")[0].ids == TOKENIZER.encode("(a:1.2) BREAK").ids


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (70, 10, [71, 10]),  # the comma is the 71st token; five follow and go with the next chunk
        (55, 30, [56, 30]),  # 20 tokens at the end: still near
        (54, 30, [75, 10]),  # 21 tokens are too many
        (74, 10, [75, 10]),  # the comma itself is the last
        (75, 10, [75, 11]),  # the comma begins the next chunk
        (60, 5, [66]),
    ],
)
def test_a1111_ends_a_chunk_at_a_comma(before: int, after: int, expected: list[int]) -> None:
    text = f"{words(before)}, {words(after)}"
    assert lengths(text) == expected
    assert sum(lengths(text, "comfy")) == sum(expected)
    assert lengths(text, "compel") == [
        min(75, sum(expected)),
        *([sum(expected) - 75] * (len(expected) > 1)),
    ]


def test_weights_move_with_their_tokens() -> None:
    first, second = chunks(f"{words(70)}, {words(3)}(a a a a:1.3)")
    assert first.end == 72
    assert not first.weighted
    assert second.weights[1:9] == (1.0, 1.0, 1.0, 1.3, 1.3, 1.3, 1.3, 1.0)
    assert second.weights[0] == second.weights[-1] == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{words(70)}(a a a a a a a:1.2)", [70, 7]),  # 7 tokens stay together
        (f"{words(70)}(a a a a a a a a:1.2)", [75, 3]),  # 8 do not
        (f"{words(75)}(a:1.2)", [75, 1]),
        (f"(a:1.1){words(90)}", [75, 16]),
    ],
)
def test_comfy_keeps_short_stretches_whole(text: str, expected: list[int]) -> None:
    assert lengths(text, "comfy") == expected


@pytest.mark.parametrize("style", ["a1111", "comfy", "compel"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a BREAK a a", [1, 2]),
        ("a BREAK", [1]),
        ("BREAK a", [0, 1]),
        ("a BREAK BREAK a", [1, 0, 1]),
        (f"{words(75)}BREAK a", [75, 1]),
        (f"{words(76)}BREAK a", [75, 1, 1]),
        ("BREAK", [0]),
        ("(a BREAK a:1.2)", [1, 1]),
    ],
)
def test_break_begins_a_chunk(style: PromptStyle, text: str, expected: list[int]) -> None:
    assert lengths(text, style) == expected


@pytest.mark.parametrize("style", ["a1111", "comfy", "compel"])
def test_embeddings_are_vectors(style: PromptStyle) -> None:
    (chunk,) = chunks("a (embedding:two:1.2), a", style)
    assert chunk.tokens[:6] == (START, A, Vector("two", 0), Vector("two", 1), COMMA, A)
    assert chunk.weights[:6] == (1.0, 1.0, 1.2, 1.2, 1.0, 1.0)
    assert chunk.ids[2:4] == (END, END)
    assert chunk.end == 6


@pytest.mark.parametrize(
    ("style", "expected"), [("a1111", [74, 2]), ("comfy", [74, 2]), ("compel", [75, 1])]
)
def test_vectors_of_an_embedding_stay_together(style: PromptStyle, expected: list[int]) -> None:
    assert lengths(f"{words(74)}embedding:two", style) == expected
    assert sum(lengths("embedding:many", style)) == 80


def test_an_unknown_embedding_is_refused() -> None:
    (term,) = parse("a embedding:none").terms
    with pytest.raises(UsageError, match='there is no embedding "none"'):
        divide(term.at(0, 1), TOKENIZER, "a1111", lambda name: len(NO_EMBEDDINGS(name)))


def test_a_prompt_with_half_a_character_is_refused() -> None:
    with pytest.raises(UsageError, match="not valid Unicode text"):
        chunks("a \ud800")


def test_a_vocabulary_without_commas_divides_where_the_chunk_is_full() -> None:
    bare = tokenizer()
    bare.comma = None
    (term,) = parse(f"{words(70)}, {words(10)}").terms
    divided = divide(term.at(0, 1), bare, "a1111", len)
    assert [chunk.end - 1 for chunk in divided] == [75, 6]
