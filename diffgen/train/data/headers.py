"""The header and the hash of every picture, cached between runs.

Reading all data anew takes about 0.4 ms a picture; the memory is a JSON file in the cache folder.
A picture counts as known while its file is the same one by number, size and times: that of the
last change of anything about it, which nobody can set back, among them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, OutputError
from diffgen.files import replaced
from diffgen.jsonfile import parse_json
from diffgen.train.data.pictures import Entry, Probe, probe

NAME = "headers.json"
FORMAT = 2  # of the file, and of what is understood in pictures' headers
THREADS = 8  # enough to hide a disk's latency


def probe_all(entries: Sequence[Entry], folder: Path | None) -> list[Probe]:
    """Probe pictures that are not known yet. Raises ConfigError, and OutputError for the folder.

    Only sound ones are remembered: a library installed since may read others.
    """
    stamp = cache(_stamp)
    keys = [f"{entry.file}:{stamp(entry.file)}:{entry.offset}:{entry.length}" for entry in entries]
    known = _read(folder / NAME) if folder else {}
    missing = [(key, entry) for key, entry in zip(keys, entries, strict=True) if key not in known]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(probe, [entry for _, entry in missing]))
    new = {key: p for (key, _), p in zip(missing, found, strict=True)}
    if folder and any(p.size for p in found):
        _write(folder / NAME, known | new)
    known |= new
    return [known[key] for key in keys]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _read(path: Path) -> dict[str, Probe]:
    """The cached entries; a damaged file counts as empty."""
    try:
        table: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"), str(path))
        rows = table["pictures"] if table["format"] == FORMAT else {}
        return {key: _probe(*row) for key, row in rows.items()}
    except (OSError, ConfigError, ValueError, TypeError, AttributeError, LookupError):
        return {}


def _probe(digest: str, width: int, height: int) -> Probe:
    if (type(digest), type(width), type(height)) != (str, int, int) or min(width, height) < 1:
        raise ValueError("no row of ours")
    return Probe(digest, (width, height))


def _write(path: Path, known: dict[str, Probe]) -> None:
    rows = {key: (p.digest, *p.size) for key, p in known.items() if p.size}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as part:
            text = json.dumps({"format": FORMAT, "pictures": rows})
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
