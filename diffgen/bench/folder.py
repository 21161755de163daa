"""The folder of a sweep. Only a sweep's own files are ever replaced or removed.

    journal.jsonl        what has been measured so far; see diffgen.bench.journal
    references/*.safetensors   the converged latents, (pictures, C, h, w)
    cells/*.png          the first pictures of each cell and of each reference
    results.json         the results; see diffgen.bench.result_files
    results.csv          the same, one line per cell

plus the report and plots that are drawn from these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffgen.errors import ConfigError, OutputError, UsageError
from diffgen.files import locked, replaced
from diffgen.jsonfile import parse_json
from diffgen.settings.sweep import BY_LABEL

JOURNAL, RESULTS, TABLE = "journal.jsonl", "results.json", "results.csv"
CELLS, REFERENCES = "cells", "references"
SCHEMAS = "diffgen.sample-steps/"  # of every version

# Suffix for values of the further axes: `-guidance_3-rescale_0.7`.
AT = rf"(-({'|'.join(BY_LABEL)})_[a-z0-9.+-]+?)*"
# File names of a sweep, by folder. The journal comes last: it identifies the folder.
OWN = {
    CELLS: rf"(reference(-[a-z0-9_]+)?|[a-z0-9_]+-[a-z0-9_]+-\d+){AT}(-p\d+)?\.png",
    REFERENCES: rf"reference(-[a-z0-9_]+)?{AT}\.safetensors",
    "": r"trajectory-[a-z0-9_-]+-(strip\.png|animated\.(png|gif))"
    r"|results\.(json|csv)|report\.html|plots\.(png|svg)|sheet\.png",
}


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock the folder against other sweeps, creating it where it is missing.

    Raises UsageError for a folder with other files, OutputError if a sweep is running in it.
    """
    check_folder(folder)
    begun = False
    try:
        with locked(folder):
            begun = True
            yield
    except OSError as error:
        if begun:
            raise
        raise UsageError(f"cannot write into {folder}: {error.strerror or error}") from error


def check_folder(folder: Path) -> None:
    """Raises UsageError for a folder with other files."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; -o takes a folder")
    try:
        visible = folder.exists() and any(p.name[0] != "." for p in folder.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from error
    if visible and not is_sweep(folder):
        raise UsageError(f"{folder} holds other files; -o takes a new or empty folder")


def is_sweep(folder: Path) -> bool:
    """Whether this is a sweep's folder, by its journal or, if that is damaged, other files."""
    journal = folder / JOURNAL
    if not journal.is_file():
        return False
    if journal.stat().st_size == 0:
        return True  # nothing to lose
    return _says_schema(journal) or all((folder / name).is_dir() for name in (CELLS, REFERENCES))


def clear(folder: Path) -> None:
    """Remove a sweep's files; other files stay, and so do their folders."""
    for name, pattern in OWN.items():
        subfolder = folder / name
        for path in subfolder.iterdir() if subfolder.is_dir() else ():
            if re.fullmatch(pattern, path.name) and not path.is_dir():
                path.unlink()
        if name:
            with suppress(OSError):  # not there, or not empty
                subfolder.rmdir()
    (folder / JOURNAL).unlink(missing_ok=True)


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Turn failures of writing into OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file of text atomically. Raises OSError."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")


def _says_schema(journal: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError, ConfigError), journal.open("rb") as file:
        header = parse_json(file.readline(1 << 20).decode("utf-8"), JOURNAL)
        return isinstance(header, dict) and str(header.get("schema")).startswith(SCHEMAS)
    return False
