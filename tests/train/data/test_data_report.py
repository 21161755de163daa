import pytest

from diffgen.train.data.report import Found, listed, printable, some


def test_ten_names_are_listed_at_most():
    names = [f"{k}.png" for k in range(12)]
    assert listed(names[:2]) == "2 (0.png, 1.png)"
    assert listed(names).endswith("8.png, 9.png and 2 more)")
    assert some(names).startswith("12 files (0.png, ")
    assert some(["my dog.png"]) == "1 file (my dog.png)"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines\x1b[31m.png", "two\\nlines\\x1b[31m.png"),
        ("M\udcfcller.png", "M\\udcfcller.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("Müller \u3000 写真.png", "Müller \u3000 写真.png"),
    ],
)
def test_a_name_stays_on_its_line(name, shown):
    assert printable(name) == shown
    printable(name).encode()


def test_nothing_to_name_is_no_note():
    found = Found()
    found.note("odd", [])
    found.note("other", ["a"])
    found.note("other", ["b"])
    assert found.notes == {"other": ["a", "b"]}
