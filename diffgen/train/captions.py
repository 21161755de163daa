"""Pictures and their captions, from a folder or a table. Importing this module imports no torch."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from diffgen.errors import ConfigError
from diffgen.jsonfile import JsonObject, parse_json
from diffgen.train.pictures import SUFFIXES, Entry

CAPTION_SUFFIXES = (".txt", ".caption")
CAPTION_KEYS = ("text", "caption", "captions")
NAMED_AT_MOST = 10


def read_folder(folder: Path) -> list[Entry]:
    """Every picture under a folder, by name, with the captions in the .txt file beside it.

    Each line that is not blank is a caption of its own; a file without any means no words.
    Raises ConfigError for a caption file that is not UTF-8.
    """
    files = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    named = sorted((path.relative_to(folder).as_posix(), path) for path in files)
    return [
        Entry(name, path, _captions_beside(path))
        for name, path in named
        if not any(part.startswith(".") for part in name.split("/"))
    ]


def read_table(path: Path) -> list[Entry]:
    """The pictures listed in metadata.jsonl or captions.csv, relative to the table's folder.

    Each row has a `file_name` and a `text` or `caption`; JSON may hold a list of them. Rows of one
    picture add up. Raises ConfigError for malformed rows and for pictures that do not exist.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _jsonl_rows(path)
    captions: dict[str, list[str]] = {}
    for name, texts in rows:
        captions.setdefault(name, []).extend(texts)
    missing = [name for name in captions if not (path.parent / name).is_file()]
    if missing:
        raise ConfigError(f"{path} lists pictures that do not exist beside it: {some(missing)}.")
    return [Entry(name, path.parent / name, tuple(c)) for name, c in sorted(captions.items())]


def check_captioned(entries: Iterable[Entry], where: str) -> None:
    """Raise ConfigError naming the pictures without a caption, if any."""
    missing = [entry.name for entry in entries if not entry.captions]
    if missing:
        raise ConfigError(
            f"{where}: no caption for {some(missing)}; write one for each picture, "
            "in a .txt file of the same name or a metadata.jsonl."
        )


def some(names: Sequence[str]) -> str:
    """`'3 files (a.png, b.png, c.png)'`, with the first ten names."""
    more = len(names) - NAMED_AT_MOST
    listed = ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)} file{'s' if len(names) > 1 else ''} ({listed})"


def lines_of(text: str) -> tuple[str, ...]:
    """The captions in the text of a caption file; one empty caption where there are no words."""
    return tuple(line.strip() for line in text.splitlines() if line.strip()) or ("",)


def read_text(path: Path) -> str:
    """A UTF-8 text file, with or without a byte order mark. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error


def _captions_beside(picture: Path) -> tuple[str, ...]:
    files = (picture.with_suffix(suffix) for suffix in CAPTION_SUFFIXES)
    return next((lines_of(read_text(path)) for path in files if path.is_file()), ())


def _jsonl_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            data = parse_json(line, str(path), line=number)
            yield _json_row(Path(f"{path}:{number}"), data)


def _json_row(where: Path, data: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(data, dict):
        raise ConfigError(f'{where}: should be a JSON object, {{"file_name": ..., "text": ...}}.')
    row = JsonObject(where, data)
    name = row.optional("file_name", str)
    if not name:
        raise ConfigError(f'{where}: "file_name" is missing.')
    return name, captions_in(row)


def captions_in(row: JsonObject) -> tuple[str, ...]:
    """The captions under the first key of CAPTION_KEYS that is there. Raises ConfigError."""
    found = (row.many(key, str) for key in CAPTION_KEYS)
    return next((texts for texts in found if texts is not None), ())


def _csv_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    reader = csv.DictReader(read_text(path).splitlines(keepends=True), strict=True)
    try:
        key = next((k for k in CAPTION_KEYS if k in (reader.fieldnames or ())), None)
        if key is None or "file_name" not in (reader.fieldnames or ()):
            raise ConfigError(f'{path}:1: the first line should be "file_name,text".')
        for row in reader:
            if not row["file_name"] or row[key] is None:
                raise ConfigError(f"{path}:{reader.line_num}: a file name and a caption, please.")
            yield row["file_name"], (row[key],)
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.reader.line_num}: not valid CSV: {error}.") from error
