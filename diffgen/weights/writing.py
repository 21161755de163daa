"""Write safetensors files tensor by tensor, in the memory of one tensor."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from diffgen.errors import WeightsError
from diffgen.weights.files import LENGTH_BYTES, LazyTensors, Shape, TensorOp
from diffgen.weights.reading import DTYPES

if TYPE_CHECKING:
    from torch import Tensor

Step: TypeAlias = Callable[[], None]  # called after each tensor

ALIGNMENT = 8  # alignment of the header, as safetensors writes it


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor to write: its shape and format in the file, and how to get it."""

    shape: Shape
    dtype: str
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return prod(self.shape) * DTYPES[self.dtype][0]

    def after(self, op: TensorOp) -> Part:
        """The same part with another shape or order."""
        make = self.make
        return replace(self, shape=op.shape(self.shape), make=lambda: op.apply(make()))


def parts_of(tensors: LazyTensors) -> dict[str, Part]:
    """The tensors of files, unchanged."""

    def reader(name: str) -> Callable[[], Tensor]:
        return lambda: tensors[name]

    return {
        name: Part(info.shape, info.dtype, reader(name)) for name, info in tensors.infos.items()
    }


def write_parts(
    path: Path, parts: Mapping[str, Part], metadata: Mapping[str, str], *, step: Step
) -> None:
    """Write one safetensors file. Raises OSError, and WeightsError for a wrong shape."""
    order = sorted(parts, key=lambda name: (-DTYPES[parts[name].dtype][0], name))
    with path.open("wb") as file:
        file.write(_header({name: parts[name] for name in order}, metadata))
        for name in order:
            _write(file, path, name, parts[name])
            step()
        file.flush()
        os.fsync(file.fileno())


def _header(parts: Mapping[str, Part], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, start, stop in _places(parts):
        part = parts[name]
        table[name] = {
            "dtype": part.dtype,
            "shape": list(part.shape),
            "data_offsets": [start, stop],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _places(parts: Mapping[str, Part]) -> Iterator[tuple[str, int, int]]:
    start = 0
    for name, part in parts.items():
        yield name, start, start + part.size
        start += part.size


def _write(file: BinaryIO, path: Path, name: str, part: Part) -> None:
    tensor = part.make().contiguous()
    if tuple(tensor.shape) != part.shape or tensor.nbytes != part.size:
        raise WeightsError(f"{path}: {name} is {tuple(tensor.shape)}, not {part.shape}")
    if tensor.nbytes:
        # torch lends its memory to Python by way of NumPy, which is not required.
        file.write((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
