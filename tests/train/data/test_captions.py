import json
import unicodedata

import pytest
from PIL import Image

from diffgen.errors import ConfigError
from diffgen.train.data.captions import (
    LINES,
    PARAGRAPHS,
    captions_of,
    check_captioned,
    read_table,
)
from diffgen.train.data.folders import read_folder
from diffgen.train.data.report import Found

# Ends of lines for str.splitlines, and for no text file.
SEPARATORS = "\u2028\u2029\x85\v\f\x1c\x1d\x1e"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.PNG", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def by_name(entries):
    return {entry.name: entry.captions for entry in entries}


def test_a_folder_with_caption_files(folder):
    (folder / "a.txt").write_text("\ufeffa cat\n  a small cat \n", encoding="utf-8")
    (folder / "b.caption").write_text("ein B\u00e4r", encoding="utf-8")
    (folder / "sub" / "c.txt").write_text("\n")
    (folder / ".thumbs").mkdir()
    Image.new("RGB", (8, 8)).save(folder / ".thumbs" / "a.png")
    assert by_name(read_folder(folder).entries) == {
        "a.png": ("a cat", "a small cat"),
        "b.PNG": ("ein B\u00e4r",),
        "sub/c.png": ("",),
    }


def test_missing_captions_are_named_ten_at_most(tmp_path):
    for k in range(12):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{k:02}.png")
    with pytest.raises(ConfigError) as caught:
        check_captioned(read_folder(tmp_path).entries, "photos")
    message = str(caught.value)
    assert "12 files (00.png, 01.png" in message
    assert "09.png and 2 more" in message
    assert "10.png" not in message
    assert "\n" not in message


def test_metadata_jsonl_with_several_captions(folder):
    table = folder / "metadata.jsonl"
    table.write_text(
        '{"file_name": "a.png", "text": ["one", "two"]}\n\n'
        '{"file_name": "sub/c.png", "caption": "three"}\n'
        '{"file_name": "a.png", "text": "four"}\n'
    )
    assert by_name(read_table(table)) == {"a.png": ("one", "two", "four"), "sub/c.png": ("three",)}


@pytest.mark.parametrize(
    ("text", "style", "expected", "note"),
    [
        ("a cat\na dog\n", "auto", ("a cat", "a dog"), LINES),
        ("a cat\r\na dog\r\n", "auto", ("a cat", "a dog"), LINES),
        ("A barn.\n\nIt is red.\n", "auto", ("A barn. It is red.",), PARAGRAPHS),
        ("A barn.\r\n \r\nIt is red.", "auto", ("A barn. It is red.",), PARAGRAPHS),
        ("A barn.\n\nIt is red.\n", "lines", ("A barn.", "It is red."), None),
        ("a cat\na dog\n", "whole", ("a cat a dog",), None),
        ("\n\na cat\n\n", "auto", ("a cat",), None),
        ("", "auto", ("",), None),
        ("\n", "whole", ("",), None),
        *((f"a car{end}by a lake", "auto", (f"a car{end}by a lake",), None) for end in SEPARATORS),
    ],
)
def test_only_line_feeds_end_lines_and_blank_lines_make_paragraphs(text, style, expected, note):
    found = Found()
    assert captions_of(text, style, "a.txt", found) == expected
    assert found.notes == ({note: ["a.txt"]} if note else {})


@pytest.mark.parametrize("name", ["captions.csv", "metadata.jsonl"])
def test_only_line_feeds_end_rows(folder, name):
    words = "".join(f"a car{end}by a lake" for end in SEPARATORS)
    row = {"file_name": "a.png", "text": words}
    lines = f"file_name,text\r\na.png,{words}\r\n" if name.endswith("csv") else json.dumps(row)
    (folder / name).write_bytes(lines.encode())
    assert by_name(read_table(folder / name)) == {"a.png": (words,)}


def test_a_name_in_another_unicode_form_is_found(tmp_path):
    """macOS writes accents apart from their letters, and tables are written elsewhere."""
    apart, together = (unicodedata.normalize(form, "für/é.png") for form in ("NFD", "NFC"))
    (tmp_path / apart).parent.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / apart)
    table = tmp_path / "metadata.jsonl"
    table.write_text(json.dumps({"file_name": together, "text": "x"}))
    (entry,) = read_table(table)
    assert entry.name == together
    assert entry.file.is_file()


def test_blanks_after_commas(folder):
    table = folder / "metadata.csv"
    table.write_text('file_name, text\na.png, "a cat, asleep"\nb.PNG, bear\n')
    assert by_name(read_table(table)) == {"a.png": ("a cat, asleep",), "b.PNG": ("bear",)}


def test_captions_csv(folder):
    table = folder / "captions.csv"
    table.write_text('file_name,caption\na.png,"a cat, asleep"\nb.PNG,bear\na.png,cat\n')
    assert by_name(read_table(table)) == {"a.png": ("a cat, asleep", "cat"), "b.PNG": ("bear",)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": "x"}\n{oops\n',
            "jsonl:2: not valid JSON",
        ),
        ("metadata.jsonl", "[1]\n", "jsonl:1: should be a JSON object"),
        ("metadata.jsonl", '{"text": "x"}\n', 'jsonl:1: "file_name" is missing'),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": 7}\n',
            'jsonl:1: "text" should be a str',
        ),
        ("metadata.jsonl", '{"file_name": "z.png", "text": "x"}\n', r"1 file \(z.png\)"),
        ("captions.csv", "name,words\na.png,x\n", "csv:1: the first line"),
        ("captions.csv", "", "csv:1: the first line"),
        ("captions.csv", "file_name;text\na.png;x\n", 'commas between cells, not ";"'),
        ("captions.csv", "file_name,text\na.png\n", "csv:2"),
        ("captions.csv", 'file_name,text\na.png,"x"y\n', "csv:2: not valid CSV"),
    ],
)
def test_malformed_tables_are_named_with_their_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_table(folder / name)


def test_a_name_that_no_file_can_have(tmp_path):
    row = {"file_name": "x" * 5000, "text": "a"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(
        ConfigError, match="lists pictures that do not exist beside it: 1 file"
    ) as e:
        read_table(tmp_path / "metadata.jsonl")
    assert len(str(e.value)) < 500
