"""WebDataset tar shards as a list of pictures that can be read in any order.

The webdataset library knows the naming: which members make a sample, and how a pattern like
`photos-{000..012}.tar` expands. Its readers are streams, which can neither start in the middle nor
be dealt to ranks picture by picture; so each shard's directory is read once and its pictures are
then read at their offsets. Importing this module does not import torch.
"""

from __future__ import annotations

import glob
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, UsageError
from diffgen.jsonfile import JsonObject, parse_json
from diffgen.train.captions import captions_in, lines_of
from diffgen.train.pictures import SUFFIXES, Entry

Member = tuple[int, int]  # offset and length in the tar file


def expand_shards(pattern: str) -> list[Path]:
    """The files that a path with braces, `*` or `?` stands for.

    Raises UsageError for an address on the network, for a pattern that matches nothing and where
    webdataset is not installed.
    """
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UsageError(f"{pattern}: shards are read from disk; download them first.")
    _webdataset()
    from webdataset.shardlists import expand_urls

    paths: list[Path] = []
    for part in expand_urls(pattern):
        matches = sorted(glob.glob(part)) if any(c in part for c in "*?[") else [part]
        if not matches:
            raise UsageError(f"{part}: no such shards.")
        paths += [Path(match) for match in matches]
    return paths


def read_shards(paths: Sequence[Path]) -> list[Entry]:
    """The samples with a picture, shard by shard, in their order in the tar files.

    Captions come from a sample's .txt or .caption member, or from its .json. Raises ConfigError
    for a shard that cannot be read at random: missing, compressed, cut off or no tar file.
    """
    _webdataset()
    return [entry for path in paths for entry in _read_shard(path)]


def _read_shard(path: Path) -> Iterator[Entry]:
    from webdataset.tariterators import group_by_keys

    members = _directory(path)
    files = ({"fname": name, "data": place, "__url__": str(path)} for name, place in members)
    try:
        with path.open("rb") as file:
            for sample in group_by_keys(files):
                yield from _entries(path, sample, file)
    except ValueError as error:  # two members of one name
        raise ConfigError(f"{path}: {error.args[0]}.") from error


def _directory(path: Path) -> list[tuple[str, Member]]:
    try:
        with tarfile.open(path, "r:") as tar:
            found = [(m.name, (m.offset_data, m.size)) for m in tar if m.isreg()]
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; are all shards downloaded?") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except tarfile.TarError as error:
        raise ConfigError(
            f"{path} is not an uncompressed tar file ({error}); unpack or download it again."
        ) from error
    size = path.stat().st_size
    cut = [name for name, (offset, length) in found if offset + length > size]
    if cut:
        raise ConfigError(f"{path} is cut off in {cut[0]}; download it again.")
    return found


def _entries(path: Path, sample: Mapping[str, Any], file: Any) -> Iterator[Entry]:
    """One entry for each picture of a sample; their captions are the same."""
    pictures = [key for key in sample if "." + key.rsplit(".", 1)[-1] in SUFFIXES]
    captions = _captions(path, sample, file) if pictures else ()
    for key in pictures:
        offset, length = sample[key]
        name = f"{path.name}/{sample['__key__']}.{key}"
        yield Entry(name, path, captions, offset, length)


def _captions(path: Path, sample: Mapping[str, Any], file: Any) -> tuple[str, ...]:
    where = Path(f"{path}/{sample['__key__']}")
    for key in ("txt", "caption"):
        if key in sample:
            return lines_of(_text(where, file, sample[key]))
    if "json" not in sample:
        return ()
    data = parse_json(_text(where, file, sample["json"]), f"{where}.json")
    return captions_in(JsonObject(where, data if isinstance(data, dict) else {}))


def _text(where: Path, file: Any, member: Member) -> str:
    file.seek(member[0])
    try:
        return str(file.read(member[1]), encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: the caption is not UTF-8 text.") from error


def _webdataset() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "tar shards need the webdataset library; install it with: pip install 'diffgen[train]'"
        ) from error
