"""What A1111's grammar and ours make of prompts, and that no character of a prompt is lost."""

from __future__ import annotations

import re
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.errors import UsageError
from diffgen.text.grammar import MAX_DEPTH, parse
from diffgen.text.prompt import (
    Alternated,
    Edited,
    LoraTag,
    Nodes,
    Piece,
    Prompt,
    Wording,
)

Pieces: TypeAlias = list[tuple[str, float]]

# A prompt that stays the same over the run, and its pieces with their weights, "|" where BREAK
# stood. Where A1111's own tests have a case, it is here with its numbers.
TABLE: list[tuple[str, Pieces]] = [
    ("", []),
    ("normal text", [("normal text", 1.0)]),
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("an [unimportant] word", [("an ", 1.0), ("unimportant", 1 / 1.1), (" word", 1.0)]),
    ("a (red:1.2) barn", [("a ", 1.0), ("red", 1.2), (" barn", 1.0)]),
    ("(red:1.2)", [("red", 1.2)]),
    ("(red: 1.2 )", [("red", 1.2)]),
    ("(red :1.2)", [("red ", 1.2)]),
    ("(red:.5)", [("red", 0.5)]),
    ("(red:2.)", [("red", 2.0)]),
    ("(red:+1.5)", [("red", 1.5)]),
    ("(red:-1)", [("red", -1.0)]),
    ("(red:0)", [("red", 0.0)]),
    ("(red:1e-1)", [("red", 0.1)]),
    ("(red:1)", [("red", 1.0)]),
    ("((red))", [("red", 1.21)]),
    ("(((red)))", [("red", 1.331)]),
    ("[[red]]", [("red", 1 / 1.21)]),
    ("([red])", [("red", 1.0)]),
    ("(a (b) c)", [("a ", 1.1), ("b", 1.21), (" c", 1.1)]),
    ("(a (b:1.2) c:1.3)", [("a ", 1.3), ("b", 1.56), (" c", 1.3)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    ("(a)(b:1.1)", [("ab", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))).",
        [
            *(("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1)),
            *(("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641), (".", 1.0)),
        ],
    ),
    (r"\(literal\]", [("(literal]", 1.0)]),
    (r"saber \(fate\), (x)", [("saber (fate), ", 1.0), ("x", 1.1)]),
    (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
    (r"\\(a)", [("\\", 1.0), ("a", 1.1)]),
    ("back\\slash", [("back\\slash", 1.0)]),
    ("(unbalanced", [("(unbalanced", 1.0)]),
    ("unbalanced)", [("unbalanced)", 1.0)]),
    ("((a][:b:c", [("((a][:b:c", 1.0)]),
    ("(a [b) c", [("a [b", 1.1), (" c", 1.0)]),
    ("[a (b] c", [("a (b", 1 / 1.1), (" c", 1.0)]),
    ("(a] b)", [("a] b", 1.1)]),
    (")(", [(")(", 1.0)]),
    ("()", []),
    ("a () b", [("a  b", 1.0)]),
    ("a clock at 10:30, 16:9", [("a clock at 10:30, 16:9", 1.0)]),
    ("(the time: noon)", [("the time: noon", 1.1)]),
    ("(16:9:1.2)", [("16:9", 1.2)]),
    ("(a:b:c)", [("a:b:c", 1.1)]),
    ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
    ("(a:(1.2))", [("a:", 1.1), ("1.2", 1.21)]),
    ("[a:b]", [("a:b", 1 / 1.1)]),
    ("[a:b:c:0.5]", [("a:b:c:0.5", 1 / 1.1)]),
    ("a | b", [("a | b", 1.0)]),
    ("(a|b)", [("a|b", 1.1)]),
    ("x BREAK y", [("x ", 1.0), ("|", 0.0), (" y", 1.0)]),
    ("(x BREAK y:1.2)", [("x ", 1.2), ("|", 0.0), (" y", 1.2)]),
    ("x,BREAK,y", [("x,", 1.0), ("|", 0.0), (",y", 1.0)]),
    ("BREAK", [("|", 0.0)]),
    ("BREAK BREAK x", [("|", 0.0), (" ", 1.0), ("|", 0.0), (" x", 1.0)]),
    ("BREAKFAST outbreak break", [("BREAKFAST outbreak break", 1.0)]),
    ("BRAND ANDES and", [("BRAND ANDES and", 1.0)]),
    ("a <b> c", [("a <b> c", 1.0)]),
    ("a <lora:style:0.7> b", [("a  b", 1.0)]),
    ("<hypernet:x:1> a", [("<hypernet:x:1> a", 1.0)]),
    ("a embedding:easy-neg, b", [("a ", 1.0), ("@easy-neg", 1.0), (", b", 1.0)]),
    ("(embedding:bad.v1:1.2).", [("@bad.v1", 1.2), (".", 1.0)]),
    ("embedding:a/b.pt.", [("@a/b.pt", 1.0), (".", 1.0)]),
    ("myembedding:x", [("myembedding:x", 1.0)]),
    ("ein blauer (Würfel:1.3) 🐱", [("ein blauer ", 1.0), ("Würfel", 1.3), (" 🐱", 1.0)]),
]


def flat(wording: Wording) -> Pieces:
    found: Pieces = []
    for index, part in enumerate(wording):
        found += [("|", 0.0)] if index else []
        found += [("@" * piece.embedding + piece.text, piece.weight) for piece in part]
    return found


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[text for text, _ in TABLE])
def test_weights(text: str, expected: Pieces) -> None:
    (term,) = parse(text).terms
    ((start, wording),) = term.schedule(20)
    assert start == 0
    assert [piece for piece, _ in flat(wording)] == [piece for piece, _ in expected]
    assert [w for _, w in flat(wording)] == pytest.approx([w for _, w in expected])


def texts(prompt: Prompt, steps: int) -> list[tuple[int, str]]:
    (term,) = prompt.terms
    return [
        (start, "".join(piece.text for part in wording for piece in part))
        for start, wording in term.schedule(steps)
    ]


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("a [b:3]", 10, [(0, "a "), (3, "a b")]),
        ("a [b: 3]", 10, [(0, "a "), (3, "a b")]),
        ("[(a:2):3]", 10, [(0, ""), (3, "a")]),
        ("a [b : c : 1] d", 10, [(0, "a b  d"), (1, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", 10, [(0, "abe"), (1, "ace"), (2, "ade")]),
        ("a [unbalanced", 10, [(0, "a [unbalanced")]),
        ("a [b:.5] c", 10, [(0, "a  c"), (5, "a b c")]),
        ("a [b::0.25] c", 10, [(0, "a b c"), (2, "a  c")]),
        ("a [b:c:1.0]", 4, [(0, "a b")]),
        ("a [b:c:1]", 4, [(0, "a b"), (1, "a c")]),
        ("a [b:c:0]", 4, [(0, "a c")]),
        ("a [b:c:99]", 4, [(0, "a b")]),
        ("a [b:c:-1]", 4, [(0, "a c")]),
        ("a [b:c:0.5]", 1, [(0, "a c")]),
        ("((a][:b:c [d:3]", 10, [(0, "((a][:b:c "), (3, "((a][:b:c d")]),
        ("[a|b]", 4, [(0, "a"), (1, "b"), (2, "a"), (3, "b")]),
        ("[a|b|]", 4, [(0, "a"), (1, "b"), (2, ""), (3, "a")]),
        ("[a|a]", 4, [(0, "a")]),
        ("[a|b:0.5]", 2, [(0, "a"), (1, "b:0.5")]),
        ("[cow|[horse:donkey:0.5]]", 4, [(0, "cow"), (1, "horse"), (2, "cow"), (3, "donkey")]),
        (
            "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
            "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]",
            100,
            [
                (0, "fantasy landscape with a mountain and an oak in foreground shoddy"),
                (25, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
                (
                    50,
                    "fantasy landscape with a lake and an oak in foreground in background masterful",
                ),
                (60, "fantasy landscape with a lake and an oak in background masterful"),
                (75, "fantasy landscape with a lake and a christmas tree in background masterful"),
            ],
        ),
    ],
)
def test_schedules(text: str, steps: int, expected: list[tuple[int, str]]) -> None:
    """The cases of A1111's own tests, and the first step counted as 0."""
    assert texts(parse(text), steps) == expected


def test_weights_hold_inside_of_schedules() -> None:
    (term,) = parse("([a:(b:1.3):2]:2)").terms
    first, second = (wording for _, wording in term.schedule(4))
    assert first == ((Piece("a", 2.0),),)
    assert second == ((Piece("b", 2.6),),)


def test_comfy_takes_the_innermost_number_alone() -> None:
    (term,) = parse("(a (b:1.2) (c):1.3)", "comfy").terms
    pieces = [(p.text.strip(), p.weight) for part in term.at(0, 1) for p in part if p.text.strip()]
    assert pieces == [("a", 1.3), ("b", 1.2), ("c", pytest.approx(1.43))]


def test_terms_of_a_composition() -> None:
    prompt = parse("a cat:1.2 AND a (dog:1.5) :0.5 AND the time: noon")
    words = ["".join(p.text for part in t.at(0, 1) for p in part).strip() for t in prompt.terms]
    assert words == ["a cat", "a dog", "the time: noon"]
    assert [term.weight for term in prompt.terms] == [1.2, 0.5, 1.0]


def test_a_single_prompt_ends_with_no_weight() -> None:
    """A1111 reads a weight of 30 here; nothing that is no syntax may change a picture."""
    assert parse("a clock at 10:30").is_plain


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        (":te=0.5:unet=0.25", (0.5, 0.25)),
        (":unet=0.25", (1.0, 0.25)),
        (":te=.5", (0.5, None)),
        (":0.5:unet=2", (0.5, 2.0)),
        (": 0.5 : 2", (0.5, 2.0)),
    ],
)
def test_a1111s_names_of_a_loras_weights(
    settings: str, weights: tuple[float, float | None]
) -> None:
    assert parse(f"a <lora:x=y{settings}>").loras == (LoraTag("x=y", *weights),)


def test_loras_are_handed_out() -> None:
    prompt = parse("a <lora:my style:0.7> b <lyco:other> (c <lora:low/x:-1:.5>:1.2)")
    assert prompt.loras == (
        LoraTag("my style", 0.7),
        LoraTag("other"),
        LoraTag("low/x", -1.0, 0.5),
    )
    assert not prompt.notes
    assert not prompt.is_plain


def test_a_negative_prompt_has_words_alone() -> None:
    prompt = parse("(ugly:1.3) AND <lora:x:1>", negative=True)
    (term,) = prompt.terms
    assert flat(term.at(0, 1)) == [("ugly", 1.3), (" AND <lora:x:1>", 1.0)]
    assert not prompt.loras
    (note,) = prompt.notes
    assert "AND in the negative prompt" in note
    assert "<lora:x:1>" in note


def test_plain_style_takes_every_character() -> None:
    text = r"(a:1.2) [b|c] AND \( BREAK <lora:x:1> (a:1e9)"
    prompt = parse(text, "plain")
    assert prompt.terms[0].at(0, 1) == ((Piece(text),),)
    assert prompt.is_plain


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("a (b", 'unbalanced brackets, "(" at character 3'),
        ("a) [b", '")" at character 2, "[" at character 4'),
        ("(((((", '"(" at character 1, "(" at character 2, "(" at character 3 and 2 more'),
        ("(a AND b)", "AND in brackets"),
    ],
)
def test_notes(text: str, note: str) -> None:
    (found,) = parse(text).notes
    assert note in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a (b:1e9)", '"b:1e9" has the weight 1e+09, where weights are from -10 to 10'),
        ("(b:nan)", "has the weight nan"),
        ("(b:-inf)", "has the weight -inf"),
        ("open (since 1:30)", '"since 1:30" has the weight 30'),
        ("(" * 25 + "a" + ")" * 25, "has the weight 10.8"),
        ("((a:5):5)", "has the weight 25"),
        ("a AND b:1e3", "has the weight 1000"),
        ("[" * (MAX_DEPTH + 1) + "a" + "]" * (MAX_DEPTH + 1), "nest at most 50 deep"),
        ("[a:b:nan]", "a step is a number, not nan"),
        ("<lora:x:y>", '"<lora:x:y>": a weight is a number from -100 to 100, not "y"'),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(".")


def leaves(nodes: Nodes) -> str:
    """All text below, of every step."""
    found = ""
    for node in nodes:
        if isinstance(node, Piece):
            found += ("embedding:" if node.embedding else "") + node.text
        elif isinstance(node, Edited):
            found += leaves(node.before) + leaves(node.after)
        elif isinstance(node, Alternated):
            found += "".join(map(leaves, node.options))
    return found


# No two of these join to a number above 10, or to a word of another kind.
MARKS = ("(", ")", "[", "]", ":", "|", "\\", "0.5", "1.2", " BREAK ", " AND ", "<lora:x:1>", " ")


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from((*MARKS, "*")), max_size=40))
def test_nothing_is_lost(pieces: list[str]) -> None:
    """Each word, here one character of its own, is in the tree once, in its order; brackets that
    are no syntax are in it too, and the notes name them.
    """
    words = iter(chr(0x4E00 + i) for i in range(40))
    text = "".join(next(words) if piece == "*" else piece for piece in pieces)
    prompt = parse(text)
    read = "".join(leaves(term.nodes) for term in prompt.terms)
    assert re.findall("[一-鿿]", read) == re.findall("[一-鿿]", text)
    assert len(prompt.loras) == text.count("<lora:x:1>")
    literal = [char for char in re.sub(r"\\[()\[\]\\]", "", text) if char in "()[]"]
    paired = sum(1 for char in literal if char in "([") * 2  # at most
    escaped = len(re.findall(r"\\[()\[\]]", text.replace(r"\\", "")))
    kept = sum(read.count(char) for char in "()[]")
    assert kept >= max(0, len(literal) - paired)
    assert (kept > escaped) == any("unbalanced" in note for note in prompt.notes)
    for term in prompt.terms:
        term.schedule(7)


@pytest.mark.parametrize("piece", ["(", "[", "()", "[a|", "(a:", "<lora:", "BREAK ", "AND ", "\\"])
def test_hostile_prompts_take_no_time(piece: str) -> None:
    for text in (piece * 20_000, (piece + ")") * 10_000, " " * 60_000 + piece):
        prompt = parse(text)
        assert prompt.terms
