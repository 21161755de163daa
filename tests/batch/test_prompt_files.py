"""diffgen.batch.files: every kind of file, whole or broken, a line at a time."""

import csv
import io
import json
import resource
from pathlib import Path

import pytest

from diffgen.batch.files import Problem, Record, read_file
from diffgen.errors import UsageError


def read(tmp_path: Path, content: bytes | str, name: str = "p.txt") -> list[Record | Problem]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(str(path)))


@pytest.mark.parametrize(
    "content",
    [
        b"# a comment\n\na barn\n  \nb --steps 3\n",
        b"\xef\xbb\xbf# a comment\r\n\r\na barn\r\n\r\nb --steps 3",
        b"# a comment\n\na barn  \n\n  b --steps 3  \n",
    ],
)
def test_text(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == [
        Record(3, {"prompt": "a barn"}),
        Record(5, {"prompt": "b", "steps": "3"}),
    ]


def test_old_macs(tmp_path: Path) -> None:
    assert read(tmp_path, "a\rb\r") == [Record(1, {"prompt": "a"}), Record(1, {"prompt": "b"})]


def test_a_record_among_lines_of_text(tmp_path: Path) -> None:
    content = (
        '{"prompt": "x", "steps": 3}\n{a|b} barn\n{"no": "prompt"}\n{"a"|b}\n{"prompt": "x", }\n'
    )
    assert read(tmp_path, content) == [
        Record(1, {"prompt": "x", "steps": 3}),
        Record(2, {"prompt": "{a|b} barn"}),
        Record(3, {"prompt": '{"no": "prompt"}'}),
        Record(4, {"prompt": '{"a"|b}'}),
        Problem(5, "not valid JSON: Expecting property name enclosed in double quotes"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a\0b", "a NUL byte; is it a text file, saved as UTF-8?"),
        (b"\xff\xd8\xff\xe0", "not UTF-8 text; save the file as UTF-8"),
        (b"x" * 300_000, "more than 256 KiB; put one prompt on a line"),
        (b"--steps 3", "there is no prompt before the options"),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path: Path, line: bytes, message: str) -> None:
    assert read(tmp_path, b"good\n" + line + b"\ngood\n") == [
        Record(1, {"prompt": "good"}),
        Problem(2, message),
        Record(3, {"prompt": "good"}),
    ]


def test_utf_16_is_one_problem(tmp_path: Path) -> None:
    found = read(tmp_path, "a barn\nanother\n".encode("utf-16"))
    assert found == [Problem(1, "UTF-16 text; save the file as UTF-8")]


def test_json_lines(tmp_path: Path) -> None:
    content = '{"prompt": "a", "steps": [1, 2]}\n\n[1]\n{"a": 1, "a": 2}\n{broken\n{"x": 1}\n'
    assert read(tmp_path, content, "p.jsonl") == [
        Record(1, {"prompt": "a", "steps": [1, 2]}),
        Problem(3, "not a JSON object, {...}: [1]"),
        Problem(4, 'the key "a" is repeated'),
        Problem(5, "not valid JSON: Expecting property name enclosed in double quotes"),
        Record(6, {"x": 1}),
    ]
    assert isinstance(read(tmp_path, "[" * 200_000, "p.ndjson")[0], Problem)


def test_csv(tmp_path: Path) -> None:
    content = '\ufeffprompt,CFG Scale,negative\n"a, ""b""\nsecond",7,\n\n,,\nc,,dark\nd,1,2,3\n'
    assert read(tmp_path, content, "p.csv") == [
        Record(2, {"prompt": 'a, "b"\nsecond', "CFG Scale": "7"}),
        Record(6, {"prompt": "c", "negative": "dark"}),
        Problem(7, "4 cells where the heading has 3"),
    ]
    with pytest.raises(UsageError, match=r"p\.csv:1: no column is called prompt"):
        read(tmp_path, "a,b\n1,2\n", "p.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt;steps\na;5\n", r'p\.csv:1: no column .*; between cells stand commas, not ";"'),
        (
            b"prompt\tsteps\na\t5\n",
            r'p\.csv:1: no column .*; between cells stand commas, not "\\t"',
        ),
        (b"\nprompt,steps,Steps\na,5,6\n", r'p\.csv:2: two columns are called "steps"'),
    ],
)
def test_headings_that_say_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, content, "p.csv")


def test_a_table_in_utf_16_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, "prompt\na\n".encode("utf-16"), "p.csv")
    assert found == [Problem(1, "UTF-16 text; save the file as UTF-8")]


def test_csv_with_broken_lines(tmp_path: Path) -> None:
    found = read(tmp_path, b"prompt\na\n\xff\nb\n", "p.csv")
    assert found == [
        Record(2, {"prompt": "a"}),
        Problem(3, "not UTF-8 text; save the file as UTF-8"),
        Record(4, {"prompt": "b"}),
    ]


def test_what_python_writes_as_csv(tmp_path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    prompts = ['say "hi"', "a,b", "two\nlines", "  x"]
    writer.writerows([["prompt"], *([prompt] for prompt in prompts)])
    found = read(tmp_path, text.getvalue(), "p.csv")
    assert [each.settings["prompt"] for each in found] == [p.strip() for p in prompts]


NO_TABLE = r"no \[\[picture\]\] table"


def test_toml(tmp_path: Path) -> None:
    content = (
        'steps = 9\n\n[[picture]]\nprompt = "a"\n\n[[picture]]\nprompt = "b"\nsteps = [3, 4]\n'
    )
    assert read(tmp_path, content, "p.toml") == [
        Record(3, {"steps": 9, "prompt": "a"}),
        Record(6, {"steps": [3, 4], "prompt": "b"}),
    ]
    for broken, message in (
        ("a = ", "not valid TOML"),
        ("a = 1", NO_TABLE),
        ("picture = [1]", NO_TABLE),
    ):
        with pytest.raises(UsageError, match=message):
            read(tmp_path, broken, "p.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", "cannot read prompts from .*: No such file"),
        (".", "cannot read prompts from .*: Is a directory"),
        ("a.png", "is a picture; --from makes it again"),
        ("a.json", r"records are one a line; name it \.jsonl"),
        ("a.yaml", r"prompts come as text, \.jsonl, \.csv or \.toml, not \.yaml"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(read_file(str(tmp_path / name)))


def test_a_hundred_megabytes_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    line = b"a barn " * 140 + b"--steps 3\n"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(line * 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in read_file(str(path))) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB


def test_json_that_was_written_comes_back(tmp_path: Path) -> None:
    settings = {"prompt": 'x\n"\u8d64"', "seed": 2**63}
    assert read(tmp_path, json.dumps(settings), "p.jsonl") == [Record(1, settings)]
