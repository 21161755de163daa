"""Captions: from files beside pictures, and from tables."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from diffgen.errors import ConfigError, shown
from diffgen.jsonfile import JsonObject, parse_json
from diffgen.train.data.pictures import Entry
from diffgen.train.data.report import Found, some

Style: TypeAlias = Literal["auto", "lines", "whole"]

CAPTION_SUFFIXES = (".txt", ".caption")
CAPTION_KEYS = ("text", "caption", "captions")

PARAGRAPHS = "captions in paragraphs, each learned as one (data.captions can change that)"
LINES = 'caption files of several lines, each a caption (data.captions = "whole" makes them one)'


class Sidecars:
    """Finds the file that goes with a picture among the names of a folder or of a tar file.

    `cat.jpg` has its words in cat.txt or cat.jpg.txt; capitals and the Unicode form do not matter
    where no name fits exactly.
    """

    def __init__(self, names: Iterable[str], suffixes: tuple[str, ...] = CAPTION_SUFFIXES) -> None:
        self._suffixes = suffixes
        self._names = {name for name in names if name.lower().endswith(suffixes)}
        self._folded = {folded(name): name for name in sorted(self._names)}

    def of(self, picture: str) -> str | None:
        """The name of the file that goes with a picture, if there is one."""
        for stem in (picture.rpartition(".")[0], picture):
            for name in (f"{stem}{suffix}" for suffix in self._suffixes):
                if name in self._names:
                    return name
                if found := self._folded.get(folded(name)):
                    return found
        return None


def folded(name: str) -> str:
    """A name without capitals, in one Unicode form: macOS writes letters and accents apart."""
    return unicodedata.normalize("NFC", name).casefold()


def captions_of(text: str, style: Style, name: str, found: Found) -> tuple[str, ...]:
    """The captions in the text of the file `name`; one empty caption where there are no words.

    Each line is one, or the whole text; "auto" takes text with blank lines inside for one caption
    in paragraphs, and notes what it took files of several lines for.
    """
    lines = [line.strip() for line in re.split(r"\r?\n", text.strip())]
    words = [line for line in lines if line]
    paragraphs = len(words) < len(lines)
    if style == "auto" and len(words) > 1:
        found.note(PARAGRAPHS if paragraphs else LINES, [name])
    if style == "whole" or (style == "auto" and paragraphs):
        return (" ".join(words),)
    return tuple(words) or ("",)


def read_table(path: Path) -> list[Entry]:
    """The pictures that a .jsonl or .csv table lists, relative to the table's folder.

    Each row has a `file_name` and a `text` or `caption`; JSON may hold a list of them. Rows of one
    picture add up. Raises ConfigError for malformed rows and for pictures that do not exist.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _jsonl_rows(path)
    captions: dict[str, list[str]] = {}
    for name, texts in rows:
        captions.setdefault(name, []).extend(texts)
    files = {name: path.parent / name for name in captions}
    absent = [name for name, file in files.items() if not os.path.isfile(file)]
    files |= _in_another_form(absent, path.parent) if absent else {}
    missing = [name for name in absent if not os.path.isfile(files[name])]
    if missing:
        raise ConfigError(f"{path} lists pictures that do not exist beside it: {some(missing)}")
    return [Entry(name, files[name], tuple(c)) for name, c in sorted(captions.items())]


def check_captioned(entries: Iterable[Entry], where: str) -> None:
    """Raise ConfigError naming the pictures without a caption, if any."""
    missing = [entry.name for entry in entries if not entry.captions]
    if missing:
        raise ConfigError(
            f"{where}: no caption for {some(missing)}; write one for each picture, in a .txt file "
            "of the same name or a metadata.jsonl, or one for all of them as data.caption (--caption)"
        )


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark. Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def captions_in(row: JsonObject) -> tuple[str, ...]:
    """The captions under the first key of CAPTION_KEYS that is there. Raises ConfigError."""
    found = (row.many(key, str) for key in CAPTION_KEYS)
    return next((texts for texts in found if texts is not None), ())


def _in_another_form(names: Iterable[str], folder: Path) -> Mapping[str, Path]:
    """Where files lie whose names are written with other Unicode code points on the disk."""

    @cache
    def forms(path: Path) -> dict[str, str]:
        there = path.iterdir() if path.is_dir() else ()
        return {unicodedata.normalize("NFC", path.name): path.name for path in there}

    def found(name: str) -> Path:
        path = folder
        for part in Path(name).parts:
            path /= forms(path).get(unicodedata.normalize("NFC", part), part)
        return path

    return {name: found(name) for name in names}


def _jsonl_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            data = parse_json(line, str(path), line=number)
            yield _json_row(Path(f"{path}:{number}"), data)


def _json_row(where: Path, data: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        raise ConfigError(f'{where}: should be a JSON object, {{"file_name": ..., "text": ...}}')
    row = JsonObject(where, data)
    name = row.optional("file_name", str)
    if not name:
        raise ConfigError(f'{where}: "file_name" is missing')
    return name, captions_in(row)


def _csv_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    # Lines end where files end them, not at the other characters that str.splitlines knows.
    lines = io.StringIO(read_text(path), newline="")
    reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        key = next((k for k in CAPTION_KEYS if k in names), None)
        if key is None or "file_name" not in names:
            others = [mark for mark in (";", "\t") if any(mark in name for name in names)]
            hint = f", commas between cells, not {shown(others[0])}" if others else ""
            raise ConfigError(f'{path}:1: the first line should be "file_name,text"{hint}')
        for row in reader:
            if not row["file_name"] or row[key] is None:
                raise ConfigError(f"{path}:{reader.line_num}: a file name and a caption, please")
            yield row["file_name"], (row[key],)
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.reader.line_num}: not valid CSV: {error}") from error
