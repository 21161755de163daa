"""Closed, full and deaf standard streams: pictures and results first, words second."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminals import environment

from diffgen.cli.console import print_json, print_result
from diffgen.cli.streams import GuardedStream, guarded_streams

QUICK = ("--steps", "1", "--seed", "7")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(
    *arguments: str, cwd: Path, redirect: str = "", text: bool = True, **env: str
) -> "subprocess.CompletedProcess[Any]":
    """`diffgen ARGUMENTS REDIRECT` in a shell."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", sys.executable, "-m", "diffgen", *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        text=text,
        check=False,
    )


class Failing(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_failure_is_kept_and_what_follows_is_dropped() -> None:
    stream = GuardedStream(Failing())
    for _ in range(2):
        assert stream.write("x") == 1
        stream.flush()
    assert isinstance(stream.failure, OSError)
    assert stream.failure.strerror == "No space left on device"


def test_a_closed_stream_fails_when_something_is_written() -> None:
    stream = GuardedStream(None)
    stream.flush()
    assert stream.failure is None
    print("x", file=stream)
    assert stream.failure is not None
    assert not stream.isatty()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_results_are_utf8_and_file_names_their_bytes(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with guarded_streams():
        print_result("\U0001f431.png")
        print_result(os.fsdecode(b"caf\xe9.png") + "\ud800")
        print_json({"path": os.fsdecode(b"\xe9"), "prompt": "é"})
    cat, cafe, record = raw.getvalue().splitlines()
    assert cat == "\U0001f431.png".encode()
    assert cafe == b"caf\xe9.png\\ud800"
    assert record == b'{"path": "\\udce9", "prompt": "\\u00e9"}'


@pytest.mark.parametrize("redirect", ["2>&-", pytest.param("2>/dev/full", marks=needs_full)])
def test_words_that_cannot_be_said_stop_nothing(redirect: str, tmp_path: Path) -> None:
    done = run("generate", "-p", "a", "-p", "b", *QUICK, cwd=tmp_path, redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a-7.png\nb-7.png\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"a-7.png", "b-7.png"}


def test_a_reader_of_words_may_go_away(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "diffgen", "generate", "a", *QUICK, "-v"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    assert (done.returncode, done.stdout) == (0, b"a-7.png\n")


@pytest.mark.parametrize(
    ("redirect", "reason"),
    [
        (">&-", "it is closed"),
        pytest.param(">/dev/full", "No space left on device", marks=needs_full),
    ],
)
def test_lost_results_are_told_once_the_pictures_are_made(
    redirect: str, reason: str, tmp_path: Path
) -> None:
    done = run("generate", "-p", "a", "-p", "b", *QUICK, "-q", cwd=tmp_path, redirect=redirect)
    line = f"error: cannot write to stdout: {reason}; results were made but not printed\n"
    assert (done.returncode, done.stderr) == (1, line)
    assert {path.name for path in tmp_path.iterdir()} == {"a-7.png", "b-7.png"}


@pytest.mark.parametrize("arguments", [("samplers",), ("--help",), ("--version",)])
@pytest.mark.parametrize("redirect", [">&-", pytest.param(">/dev/full", marks=needs_full)])
def test_every_command_tells_lost_results(
    arguments: tuple[str, ...], redirect: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path, redirect=redirect)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write to stdout: ")
    assert done.stderr.count("\n") == 1


def test_a_picture_for_a_closed_stdout_is_refused(tmp_path: Path) -> None:
    done = run("generate", "a", *QUICK, "-o", "-", cwd=tmp_path, redirect=">&-")
    assert (done.returncode, done.stderr) == (
        2,
        "error: -o -: stdout is closed; give a file's name\n",
    )


def test_a_picture_is_not_a_list_of_paths(tmp_path: Path) -> None:
    done = run("generate", "x", *QUICK, cwd=tmp_path, redirect="> barn.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: stdout tells the paths of pictures, and goes to barn.png; "
        "-o - > barn.png writes a picture there\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["barn.png"]
    for redirect in ("> paths.txt", "| cat > barn.png"):
        done = run("generate", "x", "--dry-run", *QUICK, cwd=tmp_path, redirect=redirect)
        assert done.returncode == 0


def test_a_folder_that_is_no_utf8_and_a_stdout_that_is_latin_1(tmp_path: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    done = run(
        *("generate", "barn \u732b", *QUICK, "-q", "-o", f"{folder}/"),
        cwd=tmp_path,
        text=False,
        PYTHONIOENCODING="latin-1",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    path = done.stdout.removesuffix(b"\n")
    assert path == b"caf\xe9/" + "barn-\u732b-7.png".encode()
    assert Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), path))).is_file()
