"""Words that storybook never learned, and none that it did."""

import json
from pathlib import Path

import pytest

from diffgen.errors import ConfigError
from diffgen.text.unknown_words import FILE, LITTLE, KnownWords

STORYBOOK = Path(__file__).parents[2] / "diffgen" / "assets" / "storybook"


@pytest.fixture(scope="module")
def known() -> KnownWords:
    found = KnownWords.read(STORYBOOK)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "prompt",
    [
        "a small red barn, on the left, at sunset",
        "A Small RED Barn On The Left!",
        "two elephants under a jack-o-lantern (at night)",
        "the barn's",
        "the barn\N{RIGHT SINGLE QUOTATION MARK}s",
        "a mountain, a wood and a grape",  # learned in the plural only
        "accordions",  # learned in the singular only, perhaps
        "some foxes, many wolves, ladybirds, geese and mice",
        "there is a cat with its hat, and it isn't as big as they're the dog which was here",
        "(red barn:1.3) BREAK cat AND dog <lora:style:0.7> embedding:easyneg __colour__",
        "2 dogs, 3 cats 4k 16:9",
        "",
        "\U0001f431 ...",
    ],
)
def test_what_was_learned_is_not_reported(known: KnownWords, prompt: str) -> None:
    assert list(known.unknown([prompt])) == []


def test_little_words_are_never_reported(known: KnownWords) -> None:
    assert list(known.unknown([" ".join(LITTLE)])) == []


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a wizard in the snow", ["wizard"]),
        ("Wizards, WIZARD; a wizard.", ["wizards"]),
        ("the wizard's tower", ["wizard", "tower"]),
        ("a gl\N{LATIN SMALL LETTER U WITH DIAERESIS}cklich cat", ["gl\xfccklich"]),
        ("blurry, low quality", ["blurry", "low", "quality"]),
        ("mall, lice and dion", ["mall", "lice", "dion"]),  # pieces of words in the vocabulary
    ],
)
def test_what_was_not_learned_is(known: KnownWords, prompt: str, words: list[str]) -> None:
    assert list(known.unknown([prompt])) == words


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("pony", ("horse",)),
        ("ponies", ("horse",)),  # the plural of one of those
        ("yacht", ("ship", "sailboat")),
        ("four", ("three",)),
        ("river", ("on a lake",)),
        ("giraf", ("giraffe",)),  # spelled alike
        ("happy", ()),
    ],
)
def test_near_words_are_offered(known: KnownWords, word: str, near: tuple[str, ...]) -> None:
    assert known.nearest(word) == near


def test_all_that_is_offered_was_learned(known: KnownWords) -> None:
    for word, near in known.near.items():
        assert list(known.unknown([word])) == [word]
        assert list(known.unknown(near)) == []


def test_a_word_is_shown_with_what_is_near_it(known: KnownWords) -> None:
    assert known.described("yacht") == '"yacht" (near it: ship, sailboat)'
    assert known.described("happy") == '"happy"'


def test_other_models_have_no_list(tmp_path: Path) -> None:
    assert KnownWords.read(tmp_path) is None


@pytest.mark.parametrize("table", [[], {"words": [1]}, {"words": ["a"], "near": {"b": [2]}}])
def test_a_damaged_list_is_named(tmp_path: Path, table: object) -> None:
    (tmp_path / FILE).write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=FILE):
        KnownWords.read(tmp_path)
