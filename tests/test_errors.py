import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffgen import errors
from diffgen.errors import did_you_mean, one_line

ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
PRINTED = {"print_error", "print_note"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red barn, b\u00e4r, \u732b", "red barn, b\u00e4r, \u732b"),
        ("\x1b]0;OWNED\x07", r"\x1b]0;OWNED\x07"),
        ("a\nerror: b\rc", r"a\nerror: b\rc"),
        ("\x9b31m\x85\x7f", r"\x9b31m\x85\x7f"),
        ("a\u202egnp.exe\u2066", r"a\u202egnp.exe\u2066"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("caf\udce9", r"caf\udce9"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
    ],
)
def test_text_of_others_is_one_line_that_steers_nothing(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_long_text_keeps_its_ends() -> None:
    text = one_line("a" * 5_000_000 + "; try b")
    assert text.startswith("aaa")
    assert text.endswith("a; try b")
    assert "characters ..." in text
    assert len(text) < 1600


def test_a_suggestion_ends_an_error_line() -> None:
    assert did_you_mean("eulr", ["euler", "heun"]) == '. Did you mean "euler"?'
    assert did_you_mean("nothing", ["euler", "heun"]) == ""


def messages(source: str) -> Iterator[tuple[int, str]]:
    """The lines and last words of what a module raises for users or prints as an error."""
    for call in ast.walk(ast.parse(source)):
        match call:
            case ast.Call(ast.Name(name), [text, *_]) if name in ERRORS | PRINTED:
                last = text.values[-1] if isinstance(text, ast.JoinedStr) else text
                if isinstance(last, ast.Constant) and isinstance(last.value, str):
                    yield call.lineno, last.value


def test_error_lines_have_no_final_period() -> None:
    found = []
    count = 0
    for path in Path(errors.__file__).parent.rglob("*.py"):
        for line, text in messages(path.read_text(encoding="utf-8")):
            count += 1
            if text.endswith(".") and not text.endswith("..."):
                found.append(f"{path.name}:{line}: {text}")
    assert count > 300
    assert not found


def test_the_test_would_see_one() -> None:
    told = [*messages('raise UsageError(f"{x} is not there.")\nprint_error("a" "b.")')]
    assert told == [(1, " is not there."), (2, "ab.")]
