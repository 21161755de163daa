"""Pictures in a folder and its subfolders, and the files there that are not used."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffgen.errors import UsageError
from diffgen.pictures.opening import SUFFIXES
from diffgen.train.data.captions import Sidecars, Style, captions_of, read_table, read_text
from diffgen.train.data.pictures import Entry
from diffgen.train.data.report import Found

TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")

WRITTEN = frozenset({"checkpoints", "samples", "model", "tokenizer"})  # by a run, in its folder

NOT_READ = "not read, neither pictures nor captions by their names"
NOWHERE = "links that lead nowhere"
CLOSED = "folders that cannot be read"
NO_FILES = "not read, neither files nor folders"
RUNS = "folders of training runs, not learned from"
UNLISTED = "pictures that the table of their folder does not list, left out"


def read_folder(root: Path, style: Style = "auto") -> Found:
    """Every picture under a folder, by name, with its captions.

    A folder with a table is read by it, and so is all below it; elsewhere captions lie in a file
    beside each picture. Raises UsageError for two tables in one folder, and ConfigError for
    captions that cannot be read.
    """
    found = Found()
    table_of: dict[Path, Path | None] = {}
    unlisted: dict[Path, list[Path]] = defaultdict(list)
    for folder, names in walk(root, found):
        table = table_of.get(folder.parent) or _table(folder, names)
        table_of[folder] = table
        pictures = [name for name in names if is_picture(name)]
        if table:
            unlisted[table] += [folder / name for name in pictures]
        else:
            others = _read_files(root, folder, pictures, names, style, found)
            found.note(NOT_READ, others)
    for table, lying in unlisted.items():
        _read_listed(root, table, lying, found)
    found.entries.sort(key=lambda entry: entry.name)
    return found


def pictures_below(root: Path, found: Found) -> list[str]:
    """The names of all pictures under a folder, whatever their captions."""
    return [
        _name(root, folder / name)
        for folder, names in walk(root, found)
        for name in names
        if is_picture(name)
    ]


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def walk(root: Path, found: Found) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `root` down with the names of its files; linked folders come last.

    Each is read once, however many links lead to it, so that links in a circle end. What is hidden
    is passed over; what cannot be read, and the folders of training runs, are noted. Where `root`
    is a run's folder itself, only what the run wrote is passed over.
    """
    seen: set[tuple[int, int]] = set()
    waiting, linked = [root], list[Path]()
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop(0)
        name = _name(root, folder)
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            found.note(CLOSED, [name])
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        if _is_run({entry.name for entry in shown}):
            found.note(RUNS, [name])
            if folder != root:
                continue
            shown = [entry for entry in shown if entry.name not in WRITTEN]
        waiting += [folder / e.name for e in reversed(shown) if e.is_dir(follow_symlinks=False)]
        linked += [folder / e.name for e in shown if e.is_symlink() and os.path.isdir(e.path)]
        yield folder, _files(root, folder, shown, found)


def _files(
    root: Path, folder: Path, entries: Sequence[os.DirEntry[str]], found: Found
) -> list[str]:
    """The names of the regular files of a folder; other entries are noted."""
    files = []
    for entry in entries:
        followed = entry.is_symlink()  # only then another look at the disk is needed
        if os.path.isfile(entry.path) if followed else entry.is_file():
            files.append(entry.name)
        elif not (os.path.isdir(entry.path) if followed else entry.is_dir()):
            lost = followed and not os.path.exists(entry.path)
            found.note(NOWHERE if lost else NO_FILES, [_name(root, folder / entry.name)])
    return files


def _is_run(names: set[str]) -> bool:
    return "recipe.toml" in names and not names.isdisjoint({"checkpoints", "metrics.jsonl"})


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _table(folder: Path, names: Sequence[str]) -> Path | None:
    tables = [name for name in TABLES if name in names]
    if len(tables) > 1:
        raise UsageError(f"data.path: {folder} holds {' and '.join(tables)}; give the one to use")
    return folder / tables[0] if tables else None


def _read_files(
    root: Path,
    folder: Path,
    pictures: Sequence[str],
    names: Sequence[str],
    style: Style,
    found: Found,
) -> list[str]:
    """Add pictures with the captions beside them; returns the names of the other files."""
    sidecars, read = Sidecars(names), dict[str, tuple[str, ...]]()
    for picture in pictures:
        words = sidecars.of(picture)
        if words and words not in read:
            file = folder / words
            read[words] = captions_of(read_text(file), style, _name(root, file), found)
        captions = read[words] if words else ()
        found.entries.append(Entry(_name(root, folder / picture), folder / picture, captions))
    return [_name(root, folder / name) for name in names if name not in {*pictures, *read}]


def _read_listed(root: Path, table: Path, lying: Sequence[Path], found: Found) -> None:
    """Add the pictures that a table lists, and note the others of those that lie beside it."""
    listed = read_table(table)
    prefix = "" if table.parent == root else f"{_name(root, table.parent)}/"
    found.entries += [Entry(f"{prefix}{e.name}", e.file, e.captions) for e in listed]
    files = {os.path.normpath(entry.file) for entry in listed}
    others = [_name(root, path) for path in lying if os.path.normpath(path) not in files]
    found.note(UNLISTED, others)
