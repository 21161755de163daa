"""Prompt files, read record by record: text, JSON Lines, CSV and TOML.

Files may be larger than memory, except TOML. A fault in a record becomes a `Problem`, and reading
continues with the next.
"""

from __future__ import annotations

import codecs
import csv
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from diffgen.batch.lines import parse_line
from diffgen.errors import ConfigError, DiffgenError, UsageError, reason_of, shown
from diffgen.files import expanded
from diffgen.jsonfile import parse_json, parse_toml
from diffgen.types import PICTURE_SUFFIXES

logger = logging.getLogger("diffgen")
LINE_AT_MOST = 256 << 10  # bytes
TOML_AT_MOST = 64 << 20  # bytes
PROBLEMS_SHOWN = 50
NUL = "a NUL byte; is it a text file, saved as UTF-8?"
# What would be drawn line by line, as words.
OTHER_TABLES = (".yaml", ".yml", ".tsv", ".xls", ".xlsx", ".ods", ".parquet", ".xml")
BOMS_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a file: its settings as written, among them `prompt`.

    `options_read` says that options were read off its text: a ` --word` left there is text.
    """

    line: int
    settings: Mapping[str, Any]
    options_read: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in an entry; `error` is the exception behind it, if any."""

    line: int
    message: str
    error: Exception | None = field(default=None, compare=False)


Entry = Record | Problem


class BadFile(UsageError):
    """The faults of a file; `lines` are the messages for the first ones."""

    def __init__(self, lines: Sequence[str], count: int, name: str) -> None:
        self.lines = tuple(lines)
        noun = "problem" if count == 1 else "problems"
        more = f", of which {len(lines)} are shown" if count > len(lines) else ""
        super().__init__(f"{count} {noun} in {name}{more}; no picture was made")


def check_all(problems: Iterable[Problem | None], name: str) -> None:
    """Consume the faults of a file's entries, None for good ones. Raises BadFile at the end."""
    found: list[str] = []
    count = 0
    for problem in filter(None, problems):
        count += 1
        if len(found) < PROBLEMS_SHOWN:
            found.append(f"{name}:{problem.line}: {problem.message}")
    if count:
        raise BadFile(found, count, name)


def name_of(file: str) -> str:
    """The file's name in messages."""
    return "stdin" if file == "-" else file


def read_file(file: str) -> Iterator[Entry]:
    """The records of a file, `-` for stdin, by its suffix; text for unknown ones.

    Raises UsageError for a file that cannot be read at all.
    """
    suffix = Path(file).suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        raise UsageError(f"--prompts {file} is a picture; --from makes it again")
    if suffix == ".json":
        raise UsageError(f"{file}: records are one a line; name it .jsonl")
    if suffix in OTHER_TABLES:
        raise UsageError(f"{file}: prompts come as text, .jsonl, .csv or .toml, not {suffix}")
    reader = READERS.get(suffix, _text_records)
    try:
        with _opened(file) as stream:
            yield from reader(stream, name_of(file))
    except OSError as error:
        raise UsageError(f"cannot read prompts from {name_of(file)}: {error.strerror}") from error


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    if file != "-":
        return expanded(file).open("rb")
    if sys.stdin is None:
        raise UsageError("--prompts -: stdin is closed")
    return nullcontext(sys.stdin.buffer)


def _text_records(stream: BinaryIO, _name: str) -> Iterator[Entry]:
    for number, line in _lines(stream):
        if isinstance(line, Problem):
            yield line
        elif line.startswith('{"'):
            yield _object(number, line)
        elif not line.startswith("#"):
            yield _line(number, line)


def _json_records(stream: BinaryIO, _name: str) -> Iterator[Entry]:
    for number, line in _lines(stream):
        if isinstance(line, Problem):
            yield line
        else:
            yield _record(number, line)


def _csv_records(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """A header of settings' names, then one record per row; empty cells are skipped."""
    texts = (line for _, line in _lines(stream, whole=True))
    problems: list[Problem] = []
    rows = csv.reader(_good(texts, problems), strict=True)
    heading: list[str] | None = None
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Problem(line, f"not valid CSV: {error}")
            continue
        yield from problems
        problems.clear()
        if row is None:
            return
        if heading is None:
            if any(cell.strip() for cell in row):
                heading = _heading(row, f"{name}:{line}")
        elif any(cell.strip() for cell in row):
            yield _row(line, heading, row)


def _heading(row: list[str], where: str) -> list[str]:
    """The names of the columns. Raises UsageError."""
    heading = [cell.strip() for cell in row]
    names = [cell.lower() for cell in heading if cell]
    if "prompt" not in names:
        others = [mark for mark in (";", "\t") if mark in row[0]]
        hint = f"; between cells stand commas, not {shown(others[0])}" if others else ""
        raise UsageError(f"{where}: no column is called prompt: {shown(row)}{hint}")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise UsageError(f"{where}: two columns are called {shown(twice[0])}")
    return heading


def _row(line: int, heading: list[str], row: list[str]) -> Entry:
    if len(row) > len(heading):
        return Problem(line, f"{len(row)} cells where the heading has {len(heading)}")
    named = zip(heading, (cell.strip() for cell in row), strict=False)
    return Record(line, {name: cell for name, cell in named if cell})


def _toml_records(stream: BinaryIO, name: str) -> Iterator[Entry]:
    """`[[picture]]` tables; settings above them apply to all."""
    content = stream.read(TOML_AT_MOST + 1)
    if len(content) > TOML_AT_MOST:
        raise UsageError(f"{name} has more than {TOML_AT_MOST >> 20} MiB; JSON Lines have no limit")
    try:
        text = content.decode("utf-8-sig")
        tables = parse_toml(text, name)
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text; save the file as UTF-8") from None
    except ConfigError as error:
        raise UsageError(str(error)) from error
    pictures = tables.pop("picture", None)
    if not isinstance(pictures, list) or not all(isinstance(each, dict) for each in pictures):
        raise UsageError(f"{name}: no [[picture]] table in it")
    heads = [i for i, line in enumerate(text.split("\n"), 1) if line.strip() == "[[picture]]"]
    numbers = heads if len(heads) == len(pictures) else range(1, len(pictures) + 1)
    for number, picture in zip(numbers, pictures, strict=True):
        yield Record(number, tables | picture)


READERS: dict[str, Callable[[BinaryIO, str], Iterator[Entry]]] = {
    ".jsonl": _json_records,
    ".ndjson": _json_records,
    ".csv": _csv_records,
    ".toml": _toml_records,
}


def _line(number: int, line: str) -> Entry:
    try:
        return Record(number, parse_line(line), options_read=True)
    except UsageError as error:
        return Problem(number, str(error))


def _record(number: int, line: str) -> Entry:
    try:
        return Record(number, _parsed_object(line))
    except UsageError as error:
        return Problem(number, str(error))


def _object(number: int, line: str) -> Entry:
    """A line of text that begins as JSON does: a record, a choice, or a record that is broken."""
    try:
        found = _parsed_object(line)
    except UsageError as error:
        if "|" not in line:
            return Problem(number, str(error))
    else:
        if "prompt" in found:
            return Record(number, found)
    return _line(number, line)


def _parsed_object(line: str) -> dict[str, Any]:
    try:
        found = parse_json(line, "x")
    except ConfigError as error:
        raise UsageError(str(error).removeprefix("x:1: ").removeprefix("x: ")) from None
    if not isinstance(found, dict):
        raise UsageError(f"not a JSON object, {{...}}: {shown(found)}")
    return found


def _good(lines: Iterable[str | Problem], problems: list[Problem]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, Problem):
            problems.append(line)
            yield "\n"
        else:
            yield line


def _lines(stream: BinaryIO, *, whole: bool = False) -> Iterator[tuple[int, str | Problem]]:
    """Lines with their numbers, one at a time, stripped and without blank ones unless `whole`.

    Reading continues after a byte that is not UTF-8.
    """
    number = 0
    while raw := stream.readline(LINE_AT_MOST + 2):
        number += 1
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
            if raw.startswith(BOMS_16):
                yield number, Problem(number, "UTF-16 text; save the file as UTF-8")
                return
        if len(raw.rstrip(b"\r\n")) > LINE_AT_MOST:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LINE_AT_MOST)
            limit = LINE_AT_MOST >> 10
            yield number, Problem(number, f"more than {limit} KiB; put one prompt on a line")
            continue
        text = _decoded(raw, number)
        if isinstance(text, Problem) or whole:
            yield number, text
            continue
        # Old Mac files end lines in \r alone.
        for piece in text.split("\r"):
            if piece.strip():
                yield number, piece.strip()


def _decoded(raw: bytes, number: int) -> str | Problem:
    if b"\0" in raw:
        return Problem(number, NUL)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return Problem(number, "not UTF-8 text; save the file as UTF-8")


def logged_reason(error: Exception) -> str:
    """One line about a failure; the traceback of a bug is logged for --verbose."""
    if not isinstance(error, DiffgenError):
        logger.info("it arose here", exc_info=error)
    return reason_of(error)
