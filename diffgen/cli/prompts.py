"""Prompts from the command line and from files."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from diffgen.batch.syntax import unread_syntax
from diffgen.cli.console import print_note
from diffgen.errors import UsageError

if TYPE_CHECKING:
    from diffgen.engine.request import GeneratePlan

LINE_AT_MOST = 64 << 10  # bytes


def read_prompts(prompts: Sequence[str] | None, file: str | None) -> list[str]:
    """Prompts from the command line, then those of the file.

    Raises UsageError for none at all or a file that cannot be read.
    """
    if "-" in (prompts or ()):
        raise UsageError('"-" is no prompt; --prompts - reads prompts from stdin')
    found = [*(prompts or []), *(_read_file(file) if file else [])]
    if not found:
        where = f"{file} has no prompts" if file else 'no prompt given: try "red barn at sunset"'
        raise UsageError(where)
    return found


def check_syntax(plan: GeneratePlan, *, strict: bool, embeddings: bool = False) -> None:
    """Say what of the prompts is going to be drawn as plain words though it may mean more.

    With `embeddings`, their names are read. Raises UsageError instead if `strict`.
    """
    tell_syntax(unread_syntax(plan, embeddings=embeddings), strict=strict)


def tell_syntax(pieces: Sequence[str], *, strict: bool) -> None:
    """The same of what `unread_syntax` found."""
    if not pieces:
        return
    listed = "; ".join(pieces)
    if strict:
        raise UsageError(f"prompts hold syntax that is not read: {listed}")
    print_note(f"drawn as plain words (--strict refuses it): {listed}")


def _read_file(file: str) -> list[str]:
    name = "stdin" if file == "-" else file
    try:
        with _opened(file) as stream:
            return [prompt for prompt in _lines(stream, name) if not prompt.startswith("#")]
    except OSError as error:
        raise UsageError(f"cannot read prompts from {name}: {error.strerror}") from error


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    if file != "-":
        return Path(file).expanduser().open("rb")
    if sys.stdin is None:
        raise UsageError("--prompts -: stdin is closed")
    if sys.stdin.isatty():
        print_note("reading prompts from the terminal, one a line; Ctrl-D ends them")
    return nullcontext(sys.stdin.buffer)


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines that are not blank, one at a time: a file may be larger than memory."""
    number = 0
    while line := stream.readline(LINE_AT_MOST + 2):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        text = _text(line, f"{name}:{number}")
        # An old Mac's lines end in \r alone.
        yield from (piece for each in text.split("\r") if (piece := each.strip()))


def _text(line: bytes, where: str) -> str:
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{where}: UTF-16 text; save the file as UTF-8")
    if b"\0" in line:
        raise UsageError(f"{where}: a NUL byte; is it a text file, saved as UTF-8?")
    if len(line.rstrip(b"\r\n")) > LINE_AT_MOST:
        raise UsageError(f"{where}: more than {LINE_AT_MOST >> 10} KiB; put one prompt on a line")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not UTF-8 text; save the file as UTF-8") from error
