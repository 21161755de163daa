"""Safetensors files, one or many, seen as one mapping of names to tensors read when asked for.

The format: 8 bytes of header length, a JSON header of names, number formats, shapes and offsets,
then the data (https://github.com/huggingface/safetensors). Headers are checked here, so that a
damaged download is named as what it is; the data stays in the memory-mapped file. Importing this
module does not import torch.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from safetensors import SafetensorError, safe_open

from diffgen.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
WEB_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<head")


@dataclass(frozen=True, slots=True)
class TensorOp:
    """A change made to a tensor on its way in, and what it does to the shape."""

    shape: Callable[[Shape], Shape]
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies and what it will look like, known without reading it.

    `dtype` is the format's spelling ("F16"); `shape` is the shape after `op`.
    """

    file: Path
    key: str
    shape: Shape
    dtype: str
    op: TensorOp | None = None


@dataclass(frozen=True, slots=True)
class LazyTensors(Mapping[str, "Tensor"]):
    """Tensors by name. Looking one up maps it from its file; `infos` costs no reading at all."""

    infos: Mapping[str, TensorInfo]
    _handles: dict[Path, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files behind the tensors, in order of first use."""
        return tuple(dict.fromkeys(info.file for info in self.infos.values()))

    def __getitem__(self, name: str) -> Tensor:
        info = self.infos[name]
        try:
            if info.file not in self._handles:
                self._handles[info.file] = safe_open(info.file, framework="pt")
            tensor: Tensor = self._handles[info.file].get_tensor(info.key)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{info.file} cannot be read: {error}.") from error
        return info.op.apply(tensor) if info.op else tensor

    def close(self) -> None:
        """Give the files back: tensors looked up before stay valid, later ones open them again."""
        self._handles.clear()

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def open_tensors(paths: Iterable[Path]) -> LazyTensors:
    """See one or several safetensors files as one mapping.

    Raises WeightsError, from the headers alone, for a file that is missing, incomplete, a pickle,
    a web page or a Git-LFS pointer.
    """
    infos: dict[str, TensorInfo] = {}
    for path in paths:
        infos |= read_header(path)
    return LazyTensors(infos)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The names, shapes and number formats in one safetensors file. Raises WeightsError."""
    refuse_pickle(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = _header_length(path, file.read(64), size)
            file.seek(LENGTH_BYTES)
            text = file.read(length)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; is the download complete?") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    infos, end = _parse_header(path, text)
    _check_size(path, size, LENGTH_BYTES + length + end)
    return infos


def refuse_pickle(path: Path) -> None:
    """Raise WeightsError if the file's name says that it is a pickle."""
    if path.suffix in PICKLE_SUFFIXES:
        raise _pickle_error(path)


def _pickle_error(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} is a pickle, which can run any code when it is loaded, so diffgen does not open "
        "it; use the model's .safetensors files, or convert it on a machine you can lose."
    )


def _header_length(path: Path, start: bytes, size: int) -> int:
    """The length that a file's first bytes give, or what the file is instead of safetensors."""
    if not start:
        raise WeightsError(f"{path} is empty; download it again.")
    if size < LENGTH_BYTES:
        raise WeightsError(f"{path} is cut off after {size} bytes; download it again.")
    length = int(struct.unpack("<Q", start[:LENGTH_BYTES])[0])
    # Text and pickles put ASCII where a real length has zeros, so a sane length rules them out.
    if length > MAX_HEADER:
        raise _other_format(path, start)
    _check_size(path, size, LENGTH_BYTES + length, more_follows=True)
    return length


def _other_format(path: Path, start: bytes) -> WeightsError:
    if start.startswith(b"version https://git-lfs"):
        return WeightsError(
            f"{path} is a Git-LFS pointer, not the weights; run `git lfs pull` there, or download "
            "the real file."
        )
    if start.lstrip().lower().startswith(WEB_PAGE_STARTS):
        return WeightsError(f"{path} is a web page, not weights; download the file itself again.")
    if start.startswith(PICKLE_STARTS):
        return _pickle_error(path)
    return WeightsError(
        f"{path} is not a safetensors file: it starts with {start[:16]!r}; download it again."
    )


def _check_size(path: Path, size: int, expected: int, *, more_follows: bool = False) -> None:
    if size < expected:
        at_least = "at least " if more_follows else ""
        raise WeightsError(
            f"{path} is cut off: it has {size} of {at_least}{expected} bytes; download it again."
        )
    if size > expected and not more_follows:
        raise WeightsError(
            f"{path} is damaged: it has {size} bytes where its header describes {expected}; "
            "download it again."
        )


def _parse_header(path: Path, text: bytes) -> tuple[dict[str, TensorInfo], int]:
    """The tensors and the number of data bytes that a header describes."""
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        infos = {
            key: TensorInfo(path, key, tuple(map(int, entry["shape"])), str(entry["dtype"]))
            for key, entry in header.items()
        }
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file, or its header is damaged; download it again."
        ) from error
    return infos, end


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write one file that whoever may read the user's other files may read.

    safetensors makes it for the owner alone, which is no way to share a model. Raises OSError and
    SafetensorError.
    """
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt", **metadata})
    mask = os.umask(0)  # there is no way to read it without setting it
    os.umask(mask)
    path.chmod(0o666 & ~mask)
