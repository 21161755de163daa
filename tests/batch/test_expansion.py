"""diffgen.batch.expansion: choices that depend on the seed and their own text, and nothing lost."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.batch.expansion import Expander
from diffgen.errors import UsageError

PLAIN = [
    "a barn",
    "colour #ff0000 # no comment",
    "http://example.org/x /* no comment */",
    "a {single} brace, {} and { open",
    "closed } only",
    "costs $5, 5%{sic}",
    "snake__case and __init__ without a folder",
    "(weight:1.2) [a:b:0.5] back\\slash",
]


@pytest.mark.parametrize("text", PLAIN)
def test_text_without_choices_stays_as_it_is(text: str) -> None:
    expander = Expander()
    assert not expander.has_choices(text)
    assert expander.choose(text, 1) == text
    assert list(expander.combinations(text)) == [text]


@given(text=st.text())
def test_any_text_has_a_prompt(text: str) -> None:
    """Or a line that says which choice cannot be read."""
    with suppress(UsageError):
        Expander().choose(text, 1)


@pytest.mark.parametrize("text", PLAIN)
def test_text_beside_and_inside_choices_stays_too(text: str) -> None:
    inside = text.replace("{ open", "").replace("closed }", "")
    template = f"{text.replace('{ open', '')} {{{inside}|{inside}}}"
    expected = f"{text.replace('{ open', '')} {inside.strip()}"
    assert [found.strip() for found in Expander().combinations(template)] == [expected]


def test_choices_are_the_seeds() -> None:
    expander = Expander()
    template = "a {red|green|blue} barn"
    found = Counter(expander.choose(template, seed) for seed in range(600))
    assert found.keys() == {f"a {colour} barn" for colour in ("red", "green", "blue")}
    assert min(found.values()) > 130  # 200 each; a fair choice is below 130 once in 10^9
    assert [expander.choose(template, 5) for _ in range(3)] == [expander.choose(template, 5)] * 3


def test_a_choice_does_not_depend_on_others() -> None:
    expander = Expander()
    for seed in range(50):
        one = expander.choose("{red|green|blue} x {1|2|3|4|5}", seed).split(" x ")
        other = expander.choose("{1|2|3|4|5} x {red|green|blue}", seed).split(" x ")
        assert one == other[::-1]
        assert expander.choose("new {1|2|3|4|5}", seed) == f"new {one[1]}"


def test_equal_choices_are_made_separately() -> None:
    pairs = {Expander().choose("{a|b} {a|b}", seed) for seed in range(50)}
    assert pairs == {"a a", "a b", "b a", "b b"}


def test_combinations() -> None:
    found = list(Expander().combinations("{a|b} {x {1|2}|y}"))
    assert found == ["a x 1", "a x 2", "a y", "b x 1", "b x 2", "b y"]
    some = list(Expander().combinations("{2$$ and $$a|b|c}"))
    assert some == ["a and b", "a and c", "b and a", "b and c", "c and a", "c and b"]


def test_bounds_and_weights() -> None:
    expander = Expander()
    assert {len(expander.choose("{1-2$$a|b|c}", s).split(",")) for s in range(40)} == {1, 2}
    found = Counter(expander.choose("{9::a|1::b}", seed) for seed in range(200))
    assert found["a"] > 150
    assert found["b"] > 2


def test_escapes() -> None:
    assert Expander().choose(r"\{a\|b\} {x\|y|x\|y}", 1) == "{a|b} x|y"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "colours.txt").write_text("# a comment\nred\n\nblue {1|2}\nhash #3\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "animals.txt").write_text("cat\n")
    (tmp_path / "self.txt").write_text("__self__\n")
    return tmp_path


def test_wildcards(folder: Path) -> None:
    expander = Expander(folder)
    found = {expander.choose("a __colours__ __deep/animals__", seed) for seed in range(60)}
    assert found == {f"a {colour} cat" for colour in ("red", "blue 1", "blue 2", "hash #3")}
    assert sorted(expander.combinations("__colours__")) == ["blue 1", "blue 2", "hash #3", "red"]
    assert expander.choose("{__deep/animals__|__deep/animals__}s", 1) == "cats"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("__colour__", r'no wildcard "colour" in .* Did you mean "colours"\?'),
        ("__../secret__", 'no wildcard "../secret"'),
        ("{a|__missing__}", 'no wildcard "missing"'),
        ("__self__", "leads back to itself"),
        ("{a|b|c|d|{e|f|__missing__}}", 'no wildcard "missing"'),
        ("__outer__", 'no wildcard "inner"'),
        ("__empty__", 'the wildcard "empty" in .* has no lines'),
        ("__none__", 'the wildcard "none" in .* has no lines'),
        ("__latin__", r"latin\.txt is not UTF-8 text; save the file as UTF-8"),
        ("__wide__", r"wide\.txt is not UTF-8 text; save the file as UTF-8"),
        ("__lost__", r'no wildcard "lost" in .*; .*broken\.yaml, .*lists\.yml cannot be read'),
    ],
)
def test_wildcards_that_lead_nowhere(folder: Path, template: str, message: str) -> None:
    (folder / "outer.txt").write_text("x\n" * 40 + "{y|__inner__}\n")
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "latin.txt").write_bytes(b"r\xe9d\n")
    (folder / "wide.txt").write_bytes("red\n".encode("utf-16"))
    (folder / "none.yaml").write_text("none: []\n")
    (folder / "lists.yml").write_text("- [a, b]\n")
    (folder / "broken.yaml").write_text("lost: [red, blue\nb")
    expander = Expander(folder)
    for _ in range(2):  # the next line of a file is told too
        with pytest.raises(UsageError, match=message):
            expander.check(template)


def test_lines_with_weights(folder: Path) -> None:
    (folder / "often.txt").write_bytes("\ufeff0.9::red\r\n0.1::(blue:1.2)\r\n".encode())
    (folder / "shelf.yaml").write_text("kept:\n  deep: ['0.5::x', y]\n")
    expander = Expander(folder)
    found = [expander.choose("__often__", seed) for seed in range(200)]
    assert set(found) == {"red", "(blue:1.2)"}
    assert found.count("red") > 150
    assert sorted(expander.combinations("__often__")) == ["(blue:1.2)", "red"]
    assert sorted(expander.combinations("__kept/deep__")) == ["x", "y"]


def test_tables(folder: Path) -> None:
    """Text as it stands there: YAML would take some words for other things."""
    (folder / "flat.yml").write_text("\ufeff- no\n- 1.50\n-\n- r\u00e9d\n", encoding="utf-8")
    (folder / "tree.json").write_text(
        '{"a": {"b": ["x", 3, {"text": "y", "weight": 0}]}, "c": "one"}'
    )
    expander = Expander(folder)
    assert sorted(expander.combinations("__flat__")) == ["1.50", "no", "r\u00e9d"]
    assert sorted(expander.combinations("__a/b__")) == ["3", "x", "y"]
    assert {expander.choose("__a/b__", seed) for seed in range(40)} == {"3", "x"}
    assert expander.choose("__c__", 1) == "one"


def test_a_folder_that_holds_itself(folder: Path) -> None:
    (folder / "deep" / "again").symlink_to(folder)
    assert Expander(folder).choose("__deep/animals__", 1) == "cat"


def test_too_many_combinations() -> None:
    with pytest.raises(UsageError, match="more than 1000000 combinations"):
        list(Expander().combinations("{0|1|2|3|4|5|6|7|8|9} " * 7))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--wildcards: there is no folder"):
        Expander(tmp_path / "x")
