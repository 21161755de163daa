import pytest

from diffgen.errors import one_line


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
