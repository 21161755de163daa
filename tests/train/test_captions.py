import pytest
from PIL import Image

from diffgen.errors import ConfigError
from diffgen.train.captions import check_captioned, read_table
from diffgen.train.folders import read_folder


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
        ("captions.csv", "file_name,text\na.png\n", "csv:2"),
        ("captions.csv", 'file_name,text\na.png,"x"y\n', "csv:2: not valid CSV"),
    ],
)
def test_malformed_tables_are_named_with_their_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_table(folder / name)


def test_captions_must_be_utf8(folder):
    (folder / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"a\.txt is not UTF-8"):
        read_folder(folder)
