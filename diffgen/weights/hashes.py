"""SHA-256 of weights files, cached in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from diffgen.errors import ConfigError, WeightsError
from diffgen.files import replaced
from diffgen.jsonfile import parse_json
from diffgen.weights.files import LENGTH_BYTES
from diffgen.weights.reading import Stamp, opened, stamp


def sha256(path: Path, known: Stamp, *, data_only: bool = False) -> str | None:
    """The hash of a file, or of its data without the header, as hexadecimal digits.

    None if the file no longer has the stamp `known`, so that its former content cannot be hashed.
    An unusable cache only costs time.
    """
    entry = _entry(path, "data" if data_only else "file")
    try:
        with opened(path) as file:
            if stamp(file) != known:
                return None
            if found := _kept(entry, known):
                return found
            if data_only:
                file.seek(LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little"))
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if stamp(file) != known:
                return None
    except WeightsError:
        return None
    _keep(entry, known, found)
    return found


def cache_folder() -> Path | None:
    """The folder for regenerable files of this user's programs; None if there is none."""
    if sys.platform == "win32":
        usual = os.environ.get("LOCALAPPDATA", "")
    else:
        usual = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    cache = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or usual))
    # The XDG rules ignore relative paths; "~" remains where the home is unknown.
    return cache / "diffgen" if cache.is_absolute() else None


def _entry(path: Path, what: str) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(f"{what} {path.absolute()}".encode(errors="surrogateescape"))
    return folder and folder / "sha256" / f"{name.hexdigest()[:32]}.json"


def _kept(entry: Path | None, known: Stamp) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError, ConfigError):
        kept = parse_json(entry.read_text(encoding="ascii"), str(entry)) if entry else {}
        if kept["stamp"] == _lasting(known) and len(bytes.fromhex(kept["sha256"])) == 32:
            return str(kept["sha256"])
    return None


def _keep(entry: Path | None, known: Stamp, found: str) -> None:
    with suppress(OSError):
        if entry:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with replaced(entry) as part:
                part.write_text(
                    json.dumps({"stamp": _lasting(known), "sha256": found}), encoding="ascii"
                )


def _lasting(known: Stamp) -> list[int]:
    """Size and times; device and inode numbers may change on a reboot."""
    return list(known[2:])
