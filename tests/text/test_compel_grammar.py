"""compel's own weights, read as compel reads them."""

import pytest
from compel.prompt_parser import PromptParser

from diffgen.errors import UsageError
from diffgen.text.foreign_syntax import find_foreign
from diffgen.text.grammar import parse

PROMPTS = [
    *("a+++", "(a b)++", "a--", "(a)1.2", "(a b)-", "a++ b", "(a b)0.5 c", "((a)1.2 b)1.5"),
    *("a, b++, c", "b,++ c", "a+b", "c++", "(a)", "a (b) c", "-", "+", "++", "a +", "a-b", "1.2"),
    *("(a)-1", "(a)+1", "(a)1.", "(a).5", "(a) 1.2", "(a)1.2b", "(a)++b", "a++b", "((a))++"),
    *("(a (b)+ c)-", "(a, b)1.1, d", "a- b", "well-known- b", "x-- y", "(a b)1.2 (c)0.8"),
    *("don't++ x", "(a)(b)++", "\N{SNOWMAN}++ a", "a++.", "a++, b", "(a)-0.5", "x+ (y+ z)1.5"),
    *(r"(\(a\) b)2", "(a)0", "(a)-- (b)--", "a\tb++\nc", ""),
]


def ours(text):
    pieces = [piece for part in parse(text, "compel").terms[0].at(0, 1) for piece in part]
    return joined((piece.text, piece.weight) for piece in pieces)


def theirs(text):
    (prompt,) = PromptParser().parse_conjunction(text).prompts
    return joined((piece.text, piece.weight) for piece in prompt.children)


def joined(pieces):
    """Neighbours of one weight as one, without blanks: both split text at other places."""
    found = []
    for text, weight in pieces:
        text = "".join(text.split())
        if found and found[-1][1] == pytest.approx(weight):
            found[-1] = (found[-1][0] + text, found[-1][1])
        elif text:
            found.append((text, weight))
    return found


@pytest.mark.parametrize("text", PROMPTS)
def test_weights_are_compels(text):
    expected = theirs(text)
    assert [word for word, _ in ours(text)] == [word for word, _ in expected]
    assert [weight for _, weight in ours(text)] == pytest.approx([w for _, w in expected])


def test_what_all_styles_share_is_read_as_well():
    assert ours("(a:1.2)") == [("a", 1.2)]
    assert ours("[(a)1.2|b]") == [("a", 1.2)]
    assert ours("(a:1.2)++") == [("a", pytest.approx(1.2 * 1.21))]


def test_weights_beyond_the_limit_are_refused():
    for text in ("(a)12", "a" + "+" * 30):
        with pytest.raises(UsageError, match="weights are from -10 to 10"):
            parse(text, "compel")


@pytest.mark.parametrize("style", ["a1111", "comfy", "plain"])
@pytest.mark.parametrize("text", ["a (big cat)++ on", "cat++, dog", "(cat)1.3 dog", "dog--"])
def test_other_styles_say_that_they_draw_them_as_words(style, text):
    assert "compel's weights (--prompt-style compel reads them)" in find_foreign([text], style)
    assert not find_foreign([text], "compel")


@pytest.mark.parametrize("style", ["a1111", "comfy", "plain", "compel"])
@pytest.mark.parametrize("text", ['("a", "b").blend(1, 1)', '("a", "b").and()', "cat.swap(dog)"])
def test_blends_are_said_in_every_style(style, text):
    assert "compel's blends" in find_foreign([text], style)


@pytest.mark.parametrize("text", ["c++", "a (cat), 2.5", "well-known", "x -- y", "f(2)", "v1.5"])
def test_ordinary_words_are_no_syntax(text):
    assert not find_foreign([text], "a1111")
