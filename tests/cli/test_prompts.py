"""Prompts of commands that take one set of settings for all."""

import io
import re
import sys
import tracemalloc
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffgen.batch.files import BadFile
from diffgen.cli.commands import app
from diffgen.cli.prompts import read_prompts


def test_prompts_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n# b\nc")))
    assert read_prompts(None, "-") == ["a", "c"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\xff\n", ":2: not UTF-8 text"),
        (b"\xef\xbb\xbfa\nb\xff\n", ":2: not UTF-8 text"),
        ("a\nb\n".encode("utf-16"), ":1: UTF-16 text; save the file as UTF-8"),
        ("a\nb\n".encode("utf-16-le"), ":1: a NUL byte"),
        (b"a\n\0\0\n", ":2: a NUL byte"),
        (b"a\n" + b"b" * 10_000_000, ":2: more than 256 KiB"),
    ],
    ids=["latin-1", "bom", "utf-16", "utf-16-le", "binary", "one line"],
)
def test_a_file_that_holds_no_prompts(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(BadFile) as bad:
        read_prompts(None, str(file))
    assert re.search(re.escape(f"p.txt{message}"), bad.value.lines[0])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_lines_of_every_kind_of_computer(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_bytes(b"a\r\n\r\nb\rc\n  # d\n" + b"e" * (64 << 10))
    assert read_prompts(["x"], str(file)) == ["x", "a", "b", "c", "e" * (64 << 10)]


def test_records_and_quotes_are_read_as_generate_reads_them(tmp_path: Path) -> None:
    text = tmp_path / "p.txt"
    text.write_text('"a sign: --steps"\na \\--dash\n{"prompt": ["b", "c"]}\n--prompt "d"\n')
    assert read_prompts(None, str(text)) == ["a sign: --steps", "a --dash", "b", "c", "d"]
    table = tmp_path / "p.csv"
    table.write_text("prompt,seed\na cat,\na dog,\n")
    assert read_prompts(None, str(table)) == ["a cat", "a dog"]


def test_all_problems_at_once_and_none_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["a barn", "# a comment --steps 3", "", "a cat --steps 3 --seed 5", "b --sped 3"]
    lines += ["--steps 3", "x" * (65 << 10), '{"prompt": "y", "format": 1, "version": "0"}']
    lines += ['{"prompt": "z", "format": 1, "version": "0", "sampler": "ddim", "seed": 1}']
    (tmp_path / "p.txt").write_text("\n".join(lines))
    result = CliRunner().invoke(app, ["sample-steps", "--prompts", "p.txt"])
    assert isinstance(result.exception, BadFile)
    same = "settings are the same for all prompts here: "
    told = [
        f"p.txt:4: {same}steps, seed; give options to the command",
        'p.txt:5: there is no setting "sped". Did you mean "',
        "p.txt:6: there is no prompt before the options",
        "p.txt:7: a prompt has at most 64 KiB: ",
        'p.txt:8: there is no setting "format"',
        f"p.txt:9: {same}",
    ]
    found = result.stderr.splitlines()
    assert len(found) == len(told)
    for line, expected in zip(found, told, strict=True):
        assert line.startswith(expected)
    assert str(result.exception) == "6 problems in p.txt; no picture was made"
    assert not list(tmp_path.glob("sample-steps*"))
