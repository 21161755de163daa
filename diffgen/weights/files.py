"""Safetensors files, one or many, as one lazy mapping of names to tensors.

The format: 8 bytes of header length, a JSON header of names, number formats, shapes and offsets,
then the data (https://github.com/huggingface/safetensors). Headers are checked here, so that errors
name the kind of damage; a file that has changed since is refused.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import starmap
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from diffgen.errors import ConfigError, WeightsError, shown, some
from diffgen.jsonfile import parse_json
from diffgen.weights.reading import (
    DTYPES,
    Stamp,
    changed,
    check_stamp,
    filled,
    opened,
    settled_stamp,
)

if TYPE_CHECKING:
    from io import FileIO

    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]

LENGTH_BYTES = 8
MAX_DIMENSIONS = 16
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
OTHER_STARTS: Mapping[bytes, str] = {
    b"GGUF": "a GGUF file, which only a model or an autoencoder may be",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"PK\x03\x04": "a zip archive; unpack it and name what is inside",
    b"\x1f\x8b": "a packed archive (gzip); unpack it and name what is inside",
    b"7z\xbc\xaf": "a packed archive (7z); unpack it and name what is inside",
    b"Rar!": "a packed archive (RAR); unpack it and name what is inside",
}
WEB_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")


@dataclass(frozen=True, slots=True)
class TensorOp:
    """A change made to a tensor on reading, and its effect on the shape."""

    shape: Callable[[Shape], Shape]
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a tensor's bytes in a file, their shape and format, and the file's stamp.

    `packed` is the format of quantised blocks ("Q8_0"), which must be decoded.
    """

    start: int
    shape: Shape
    stamp: Stamp
    dtype: str
    packed: str | None = None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's place and final form, known without reading it.

    `dtype` is the format's spelling ("F16"); `shape` is the shape after `op`.
    """

    file: Path
    key: str
    shape: Shape
    dtype: str
    place: Place
    op: TensorOp | None = None

    def after(self, op: TensorOp) -> TensorInfo:
        """The same tensor with one more change."""
        first, then = self.op, op.apply
        apply = (lambda tensor: then(first.apply(tensor))) if first else then
        return replace(self, shape=op.shape(self.shape), op=TensorOp(op.shape, apply))


@dataclass(frozen=True, slots=True)
class LazyTensors(Mapping[str, "Tensor"]):
    """Tensors by name. Looking one up reads it; `infos` needs no reading."""

    infos: Mapping[str, TensorInfo]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files behind the tensors, in order of first use."""
        return tuple(dict.fromkeys(info.file for info in self.infos.values()))

    def __getitem__(self, name: str) -> Tensor:
        ((_, tensor),) = self.read([name])
        return tensor

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Several tensors with their names, each in memory of its own, in the order of the files.

        Raises WeightsError for a file that cannot be read or has changed since its header was read,
        at the latest after its last tensor.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.infos[name].file, []).append(name)
        for path, here in by_file.items():
            places = {name: self.infos[name].place for name in here}
            with opened(path) as file:
                for name in sorted(here, key=lambda name: places[name].start):
                    yield name, _read(file, self.infos[name])
                check_stamp(path, file, {place.stamp for place in places.values()})

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def open_tensors(paths: Iterable[Path]) -> LazyTensors:
    """Open one or several safetensors files as one mapping.

    Raises WeightsError, from the headers alone, for a file that is missing, incomplete, a pickle, a
    web page or a Git-LFS pointer.
    """
    infos: dict[str, TensorInfo] = {}
    for path in paths:
        found = read_header(path)
        if twice := [key for key in found if key in infos]:
            raise WeightsError(f"{path} and {infos[twice[0]].file} both have {some(twice)}")
        infos |= found
    return LazyTensors(infos)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The names, shapes and number formats in one safetensors file. Raises WeightsError."""
    return _read_header(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """The header's metadata: texts by name. Raises WeightsError."""
    return _read_header(path)[1]


def _read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    refuse_pickle(path)
    with opened(path) as file:
        stamp, size = settled_stamp(file), os.fstat(file.fileno()).st_size
        length = _header_length(path, file.read(64), size)
        file.seek(LENGTH_BYTES)
        text = file.read(length)
        if len(text) < length:
            raise changed(path)
    infos, metadata, end = _parse_header(path, text, stamp)
    _check_size(path, size, LENGTH_BYTES + length + end)
    return infos, metadata


def _read(file: FileIO, info: TensorInfo) -> Tensor:
    """One tensor in its final form. Raises OSError and WeightsError."""
    tensor = filled(file, info.file, info.place.start, info.place.shape, info.place.dtype)
    if info.op:
        tensor = info.op.apply(tensor)
        if tensor.untyped_storage().nbytes() > tensor.nbytes:
            tensor = tensor.clone()  # a slice must not keep the whole alive
    return tensor


def refuse_pickle(path: Path) -> None:
    """Raise WeightsError if the file's name is that of a pickle."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise _pickle_error(path)


def _pickle_error(path: Path) -> WeightsError:
    named = path.suffix.lower() in PICKLE_SUFFIXES  # convert goes by the name
    source = path.name if named else f"{path.stem}.ckpt"
    rename = "" if named else f"call it {source} and "
    return WeightsError(
        f"{path} is a pickle, which can run any code when it is loaded, so diffgen does not open "
        f"it; use the model's .safetensors files, or, to read its tensors and nothing else, {rename}"
        f"run: diffgen convert {source} {path.stem}.safetensors"
    )


def _is_pickle(path: Path, start: bytes) -> bool:
    """Whether a file is one, by itself or, as PyTorch writes it, in a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # or one cut off
        return start.startswith(PICKLE_STARTS) and path.suffix.lower() != ".zip"


def _header_length(path: Path, start: bytes, size: int) -> int:
    """The header length in a file's first bytes. Raises WeightsError naming another format."""
    if not start:
        raise WeightsError(f"{path} is empty; download it again")
    if size < LENGTH_BYTES:
        raise WeightsError(f"{path} is cut off after {size} bytes; download it again")
    length = int(struct.unpack("<Q", start[:LENGTH_BYTES])[0])
    # Text and pickles have ASCII where a real length has zeros, so a small length rules them out.
    if length > MAX_HEADER:
        raise _other_format(path, start)
    _check_size(path, size, LENGTH_BYTES + length, more_follows=True)
    return length


def _other_format(path: Path, start: bytes) -> WeightsError:
    if start.startswith(b"version https://git-lfs"):
        return WeightsError(
            f"{path} is a Git-LFS pointer, not the weights; run `git lfs pull` there, or download "
            "the real file"
        )
    if start.lstrip().lower().startswith(WEB_PAGE_STARTS):
        return WeightsError(f"{path} is a web page, not weights; download the file itself again")
    if _is_pickle(path, start):
        return _pickle_error(path)
    for beginning, kind in OTHER_STARTS.items():
        if start.startswith(beginning):
            what, _, advice = kind.partition("; ")
            return WeightsError(
                f"{path} is {what}, not a safetensors file{advice and f'; {advice}'}"
            )
    return WeightsError(
        f"{path} is not a safetensors file: it starts with {start[:16]!r}; download it again"
    )


def _check_size(path: Path, size: int, expected: int, *, more_follows: bool = False) -> None:
    if size < expected:
        at_least = "at least " if more_follows else ""
        raise WeightsError(
            f"{path} is cut off: it has {size} of {at_least}{expected} bytes; download it again"
        )
    if size > expected and not more_follows:
        raise WeightsError(
            f"{path} is damaged: it has {size} bytes where its header describes {expected}; "
            "download it again"
        )


def _parse_header(
    path: Path, text: bytes, stamp: Stamp
) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """The tensors, the metadata and the number of data bytes in a header."""
    try:
        header: dict[str, Any] = parse_json(text.decode(), "header")
        metadata: dict[str, str] = header.pop("__metadata__", {})
        if not all(isinstance(entry, str) for entry in metadata.values()):
            raise ValueError("__metadata__ should map names to texts")
        begin = LENGTH_BYTES + len(text)
        infos, end = {}, 0
        for start, stop, key, shape, dtype in sorted(starmap(_entry, header.items())):
            if start != end:
                raise ValueError(f"{shown(key)} does not begin where the tensor before it ends")
            infos[key] = TensorInfo(
                path, key, shape, dtype, Place(begin + start, shape, stamp, dtype)
            )
            end = stop
    except (ValueError, TypeError, AttributeError, ConfigError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file, or its header is damaged ({error}); "
            "download it again"
        ) from error
    return infos, metadata, end


def _entry(key: str, entry: Any) -> tuple[int, int, str, Shape, str]:
    """A tensor's begin and end, name, shape and format. Raises ValueError."""
    try:
        shape, dtype, (start, stop) = entry["shape"], entry["dtype"], entry["data_offsets"]
        known = isinstance(dtype, str) and len(shape) <= MAX_DIMENSIONS
        numbers = (*shape, start, stop)
    except (LookupError, TypeError, ValueError):
        known, numbers = False, ()
    if not known or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
        raise ValueError(f"{shown(key)} lacks a sound shape, number format or place")
    size = stop - start
    if size < 0 or (dtype in DTYPES and size != prod(shape) * DTYPES[dtype][0]):
        raise ValueError(f"{shown(key)} has {size} bytes, not those of its shape and format")
    return start, stop, key, tuple(shape), dtype


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write one file with the default permissions (umask).

    safetensors creates it readable by its owner alone. Raises OSError and SafetensorError.
    """
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt", **metadata})
    mask = os.umask(0)  # there is no way to read it without setting it
    os.umask(mask)
    path.chmod(0o666 & ~mask)
