"""What every picture's header says and the hash of its bytes, remembered between runs.

Reading all data anew takes about 0.4 ms a picture; the memory is a JSON file in the cache folder.
A picture counts as known while its file's size and time of change are what they were. Importing
this module does not import torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, OutputError
from diffgen.jsonfile import parse_json
from diffgen.train.pictures import Entry, Probe, probe

NAME = "headers.json"
THREADS = 8  # enough to hide a disk's latency


def probe_all(entries: Sequence[Entry], folder: Path | None) -> list[Probe]:
    """Probe pictures that are not known yet. Raises ConfigError, and OutputError for the folder."""
    stamp = cache(_stamp)
    keys = [f"{entry.file}:{stamp(entry.file)}:{entry.offset}:{entry.length}" for entry in entries]
    known = _read(folder / NAME) if folder else {}
    missing = [(key, entry) for key, entry in zip(keys, entries, strict=True) if key not in known]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(probe, [entry for _, entry in missing]))
    known |= {key: p for (key, _), p in zip(missing, found, strict=True)}
    if folder and missing:
        _write(folder / NAME, known)
    return [known[key] for key in keys]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    return f"{status.st_size}:{status.st_mtime_ns}"


def _read(path: Path) -> dict[str, Probe]:
    """What is remembered; a file that cannot be understood is as good as none."""
    try:
        table: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"), str(path))
        return {key: _probe(*row) for key, row in table.items()}
    except (OSError, ConfigError, ValueError, TypeError, AttributeError, LookupError):
        return {}


def _probe(digest: str, size: Sequence[int] | None, is_text: bool) -> Probe:
    return Probe(digest, (size[0], size[1]) if size else None, is_text)


def _write(path: Path, known: dict[str, Probe]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {key: astuple(p) for key, p in known.items()}
        temporary.write_text(json.dumps(rows), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # not there, or no folder to be in
            temporary.unlink()
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error
