"""Tar shards, as WebDataset names their members, as pictures that can be read in any order.

The library's readers are streams, which can neither start in the middle nor be dealt to ranks
picture by picture; so each shard's directory is read once and its pictures are then read at their
offsets. The library is asked how a pattern like `photos-{000..012}.tar` expands.
"""

from __future__ import annotations

import glob
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TypeAlias

from diffgen.errors import ConfigError, UsageError
from diffgen.jsonfile import JsonObject, parse_json
from diffgen.train.data.captions import (
    CAPTION_SUFFIXES,
    Sidecars,
    Style,
    captions_in,
    captions_of,
)
from diffgen.train.data.folders import NOT_READ, is_picture
from diffgen.train.data.pictures import Entry
from diffgen.train.data.report import Found

SIDECARS = (*CAPTION_SUFFIXES, ".json")
Members: TypeAlias = Mapping[str, tuple[int, int]]  # offset and length in the tar file


def expand_shards(pattern: str) -> list[Path]:
    """The files that a path with braces, `*` or `?` stands for; a file of that name is itself.

    Raises UsageError for an address on the network, for a pattern that matches nothing and where
    webdataset is not installed.
    """
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UsageError(f"{pattern}: shards are read from disk; download them first")
    if Path(pattern).is_file():
        return [Path(pattern)]
    paths: list[Path] = []
    for part in _expanded(pattern) if "{" in pattern or "::" in pattern else [pattern]:
        matches = _matches(part)
        if not matches:
            raise UsageError(f"{part}: no such shards")
        paths += [Path(match) for match in matches]
    return paths


def read_shards(paths: Sequence[Path], style: Style = "auto") -> Found:
    """The pictures, shard by shard, in their order in the tar files.

    A picture's captions come from the member of its name that ends in .txt or .caption, or else in
    .json, wherever in the shard it lies; if there is none of its whole name, from that of its name
    up to the first dot, which several pictures may share. Raises ConfigError for a shard that
    cannot be read at random: missing, compressed, cut off or no tar file.
    """
    found = Found()
    for path in paths:
        _read_shard(path, style, found)
    return found


def _read_shard(path: Path, style: Style, found: Found) -> None:
    members = _directory(path)
    sidecars, read = Sidecars(members, SIDECARS), dict[str, tuple[str, ...]]()
    with path.open("rb") as file:
        for name, (offset, length) in members.items():
            if not is_picture(name):
                continue
            words = sidecars.of(name) or sidecars.of(f"{_sample(name)}.")
            if words and words not in read:
                text = _text(path, words, file, members[words])
                read[words] = _captions(path, words, text, style, found)
            captions = read[words] if words else ()
            found.entries.append(Entry(_entry_name(path, name), path, captions, offset, length))
    others = [m for m in members if not is_picture(m) and not m.lower().endswith(SIDECARS)]
    found.note(NOT_READ, [f"{path.name}/{name}" for name in others])


def _directory(path: Path) -> Members:
    try:
        with tarfile.open(path, "r:") as tar:
            found = [(m.name, (m.offset_data, m.size)) for m in tar if m.isreg()]
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; are all shards downloaded?") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except tarfile.TarError as error:
        raise ConfigError(
            f"{path} is not an uncompressed tar file ({error}); unpack or download it again"
        ) from error
    size = path.stat().st_size
    cut = [name for name, (offset, length) in found if offset + length > size]
    if cut:
        raise ConfigError(f"{path} is cut off in {cut[0]}; download it again")
    members = dict(found)
    if len(members) < len(found):
        names = Counter(name for name, _ in found)
        raise ConfigError(f"{path}: duplicate file name {names.most_common(1)[0][0]}")
    return {n: place for n, place in members.items() if not posixpath.basename(n).startswith(".")}


def _sample(name: str) -> str:
    """A member's name up to the first dot of its last part, which names WebDataset's sample."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _entry_name(path: Path, name: str) -> str:
    """A picture's name; the ending is in small letters, as WebDataset gives it."""
    sample = _sample(name)
    return f"{path.name}/{sample}{name[len(sample) :].lower()}"


def _captions(path: Path, name: str, text: str, style: Style, found: Found) -> tuple[str, ...]:
    if not name.lower().endswith(".json"):
        return captions_of(text, style, f"{path.name}/{name}", found)
    data = parse_json(text, f"{path}/{name}")
    return captions_in(JsonObject(Path(f"{path}/{name}"), data if isinstance(data, dict) else {}))


def _text(path: Path, name: str, file: IO[bytes], place: tuple[int, int]) -> str:
    file.seek(place[0])
    try:
        return str(file.read(place[1]), encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}/{name}: the caption is not UTF-8 text") from error


def _matches(pattern: str) -> list[str]:
    """The files that `*`, `?` and `[...]` stand for; a folder of that very name is itself."""
    folder, name = os.path.split(pattern)
    if os.path.isfile(pattern) or not any(c in pattern for c in "*?["):
        return [pattern]
    return sorted(
        glob.glob(os.path.join(glob.escape(folder), name) if os.path.isdir(folder) else pattern)
    )


def _expanded(pattern: str) -> list[str]:
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise UsageError(
            "patterns of shards need the webdataset library; install it with: "
            "pip install 'diffgen[train]'"
        ) from error
    return list(expand_urls(pattern))
