"""Programs run in a terminal of a given width, and what a person then sees there."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

from programs import ROOT, start

SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(\r\n|[\r\n])|([^\x1b\r\n]+)|(\x1b)")


class Seen(NamedTuple):
    """Exit code, what a pipe at stdout got, and what went to the terminal."""

    code: int
    out: str
    terminal: str

    @property
    def screen(self) -> list[str]:
        """The lines that are left on the terminal, without width."""
        return screen(self.terminal)


def environment(**changes: str) -> dict[str, str]:
    ours = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM_PROGRAM", "LC_TERMINAL")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | changes


def in_terminal(
    *commands: Sequence[str],
    cwd: Path,
    columns: int = 80,
    rows: int = 40,
    stdout: IO[bytes] | int | None = None,
    stdin: IO[bytes] | int | None = None,
    answers: Mapping[bytes, bytes] = MappingProxyType({}),
    **changes: str,
) -> list[Seen]:
    """Commands of diffgen, one after the other, each at a terminal of its own.

    stdout and stdin are at the terminal too unless they are a pipe or a file. `answers` is what the
    terminal says to what it is asked, `changes` those of the environment.
    """
    size = struct.pack("HHHH", rows, columns, 0, 0)
    return [_seen(words, cwd, size, stdin, stdout, answers, changes) for words in commands]


def _seen(
    words: Sequence[str],
    cwd: Path,
    size: bytes,
    stdin: IO[bytes] | int | None,
    stdout: IO[bytes] | int | None,
    answers: Mapping[bytes, bytes],
    changes: Mapping[str, str],
) -> Seen:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    with start(
        *words,
        cwd=cwd,
        env=environment(**changes),
        fresh="PYTHONIOENCODING" in changes,
        stdin=theirs if stdin is None else stdin,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        terminal = _read(ours, answers)
        out = process.stdout.read() if process.stdout else ""
        return Seen(process.wait(), out, terminal)


def _read(ours: int, answers: Mapping[bytes, bytes]) -> str:
    text, answered = b"", 0
    try:
        while piece := os.read(ours, 65536):
            text += piece
            asked = [key for key in answers if key in text[answered:]]
            for key in sorted(asked, key=text[answered:].index):
                os.write(ours, answers[key])
                answered = len(text)
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    return text.decode()


def screen(text: str) -> list[str]:
    """What a terminal without a right edge shows in the end; knows what bars and previews need."""
    lines, row, column = [""], 0, 0
    for codes, letter, move, words, stray in SEQUENCE.findall(text):
        assert not stray, f"a raw escape in {text!r}"
        if move:
            row, column = row + ("\n" in move), 0
        elif letter == "A":
            row -= int(codes or 1)
        elif letter == "J":
            lines = [*lines[:row], lines[row][:column]]
        elif letter == "K":
            lines[row] = "" if codes == "2" else lines[row][:column]
        elif words:
            lines[row] = (
                lines[row][:column].ljust(column) + words + lines[row][column + len(words) :]
            )
            column += len(words)
        lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]
