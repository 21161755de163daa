"""Read weights files that another process may be writing to.

Data are read into memory of the process, not mapped: truncating a mapped file kills its readers,
and overwriting it changes weights in use.
"""

from __future__ import annotations

import ctypes
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from diffgen.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Stamp: TypeAlias = tuple[int, ...]

TICK_NS = 20_000_000  # the clocks of file systems are finer than this
# safetensors' number formats: bytes, and torch's name.
DTYPES: Mapping[str, tuple[int, str]] = {
    "BOOL": (1, "bool"),
    "U8": (1, "uint8"),
    "I8": (1, "int8"),
    "F8_E4M3": (1, "float8_e4m3fn"),
    "F8_E5M2": (1, "float8_e5m2"),
    "F8_E4M3FNUZ": (1, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (1, "float8_e5m2fnuz"),
    "U16": (2, "uint16"),
    "I16": (2, "int16"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "U32": (4, "uint32"),
    "I32": (4, "int32"),
    "F32": (4, "float32"),
    "U64": (8, "uint64"),
    "I64": (8, "int64"),
    "F64": (8, "float64"),
    "C64": (8, "complex64"),
}


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Open a file unbuffered. OSErrors, also those in the block, become WeightsErrors."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening it would wait for a writer
            raise WeightsError(f"{path} cannot be read: it is a pipe, not a file")
        with path.open("rb", buffering=0) as file:
            yield file
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; is the download complete?") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


def stamp(file: FileIO) -> Stamp:
    """A stamp that changes with the content of an open file: the change time cannot be set back."""
    at = os.fstat(file.fileno())
    return at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns


def settled_stamp(file: FileIO) -> Stamp:
    """The stamp of a file, after waiting until any later write would change it."""
    found = stamp(file)
    if time.time_ns() - max(found[3:]) < TICK_NS:
        time.sleep(TICK_NS / 1e9)
    return found


def check_stamp(path: Path, file: FileIO, stamps: set[Stamp]) -> None:
    """Raise WeightsError unless an open file still has the given stamp."""
    if stamps != {stamp(file)}:
        raise changed(path)


def changed(path: Path) -> WeightsError:
    """The error for a file that changes while it is read."""
    return WeightsError(f"{path} changed while it was read; try again")


def filled(file: FileIO, path: Path, start: int, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A new tensor with the bytes of `file` from `start` on. Raises OSError and WeightsError."""
    import torch

    name = DTYPES[dtype][1] if dtype in DTYPES else ""
    if not hasattr(torch, name):
        raise WeightsError(f"{path} has tensors of the number format {dtype}, which is not read")
    tensor = torch.empty(shape, dtype=getattr(torch, name))
    if not tensor.numel():
        return tensor
    # torch lends its memory to Python by way of NumPy, which is not required.
    memory = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
    left = memoryview(memory).cast("B")
    file.seek(start)
    while len(left):
        got = file.readinto(left)
        if not got:
            raise changed(path)
        left = left[got:]
    return tensor
