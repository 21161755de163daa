"""The header of a GGUF file: quantised weights of llama.cpp, stable-diffusion.cpp and ComfyUI.

The format: magic, version, counts, named values, then name, shape, type and offset of each tensor
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Numbers are little-endian.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from diffgen.errors import WeightsError, shown
from diffgen.weights.files import MAX_DIMENSIONS, Place, TensorInfo, TensorOp
from diffgen.weights.quants import BLOCKS, TYPES, dequantise
from diffgen.weights.reading import Stamp, opened, settled_stamp

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_NAME = 1 << 16
STRING, ARRAY = 8, 9
NUMBERS: Mapping[int, str] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
# ComfyUI-GGUF's converter stores the original shape of reshaped tensors among the values.
OLD_SHAPE = "comfy.gguf.orig_shape."


def is_gguf(path: Path) -> bool:
    """Whether a file starts with GGUF's magic. Raises WeightsError if it cannot be read."""
    with opened(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def read_gguf(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors of a file, float32 or half precision when read, and its values as texts.

    Raises WeightsError for a damaged or cut-off file and for an unsupported version or type.
    """
    with opened(path) as file:
        stamp, size = settled_stamp(file), os.fstat(file.fileno()).st_size
        reader = _Reader(io.BufferedReader(file), path, size)
        try:
            infos, values = _read(reader, stamp)
        finally:
            reader.file.detach()
    return infos, {key: str(value) for key, value in values.items()}


class _Reader:
    """Reads numbers and texts from a file that may be cut off or lie about lengths."""

    def __init__(self, file: io.BufferedReader, path: Path, size: int) -> None:
        self.file, self.path, self.size = file, path, size

    def take(self, count: int) -> bytes:
        end = self.file.tell() + count
        if end > self.size:
            raise _cut_off(self.path, self.size, f"at least {end}")
        return self.file.read(count)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, at_most: int = 1 << 26) -> str:
        length = self.number("<Q")
        if length > at_most:
            raise _damaged(self.path, f"it has a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            item, count = self.number("<I"), self.number("<Q")
            if item in NUMBERS:
                form = NUMBERS[item]
                raw = self.take(count * struct.calcsize(form))
                return [each[0] for each in struct.iter_unpack(form, raw)]
            return [self.value(item) for _ in range(count)]
        if kind not in NUMBERS:
            raise _damaged(self.path, f"it has a value of the kind {kind}")
        return self.number(NUMBERS[kind])


def _read(reader: _Reader, stamp: Stamp) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
    magic, version = reader.take(4), reader.number("<I")
    if magic != MAGIC:
        raise _damaged(reader.path, "it does not begin with GGUF")
    if version not in VERSIONS:
        kind = "big-endian" if version >> 16 else f"version {version}"
        raise WeightsError(f"{reader.path} is a {kind} GGUF file; versions 2 and 3 are read")
    tensors, count = reader.number("<Q"), reader.number("<Q")
    values: dict[str, Any] = {}
    for _ in range(count):
        key = reader.text(MAX_NAME)
        values[key] = reader.value(reader.number("<I"))
    entries = [_entry(reader) for _ in range(tensors)]
    alignment = values.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
        raise _damaged(reader.path, f"its alignment is {shown(alignment)}")
    begin = -(-reader.file.tell() // alignment) * alignment
    infos: dict[str, TensorInfo] = {}
    for name, shape, type_id, offset in entries:
        if name in infos:
            raise _damaged(reader.path, f"it has two tensors {shown(name)}")
        old = values.get(f"{OLD_SHAPE}{name}")
        if isinstance(old, list) and prod(old) == prod(shape):
            shape = tuple(old)
        infos[name] = _info(reader, name, shape, type_id, begin + offset, stamp)
    return infos, values


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of a tensor; the file lists the fastest dimension first."""
    name, dimensions = reader.text(MAX_NAME), reader.number("<I")
    if dimensions > MAX_DIMENSIONS:
        raise _damaged(reader.path, f"{shown(name)} has {dimensions} dimensions")
    shape = tuple(reader.number("<Q") for _ in range(dimensions))[::-1]
    return name, shape, reader.number("<I"), reader.number("<Q")


def _info(
    reader: _Reader, name: str, shape: tuple[int, ...], kind: int, start: int, stamp: Stamp
) -> TensorInfo:
    if kind not in TYPES:
        raise WeightsError(
            f"{reader.path} has {shown(name)} in GGUF's type {kind}, which is not read (read are "
            f"{', '.join(TYPES.values())})"
        )
    dtype = TYPES[kind]
    block, size = BLOCKS[dtype]
    elements = prod(shape)
    if elements % block or (shape and shape[-1] % block and elements // block * block != elements):
        raise _damaged(reader.path, f"{shown(name)} does not consist of blocks of {block}")
    count = elements // block * size
    if start + count > reader.size:
        raise _cut_off(reader.path, reader.size, str(start + count))
    if block == 1:  # plain numbers in a format of torch
        return TensorInfo(reader.path, name, shape, dtype, Place(start, shape, stamp, dtype))
    place = Place(start, (count,), stamp, "U8", dtype)
    return TensorInfo(
        reader.path, name, shape, "F32", place, TensorOp(_same(shape), _of(dtype, shape))
    )


def _same(shape: tuple[int, ...]) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    return lambda _: shape


def _of(dtype: str, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda data: dequantise(data, dtype).reshape(shape)


def _cut_off(path: Path, size: int, expected: str) -> WeightsError:
    return WeightsError(f"{path} is cut off: it has {size} of {expected} bytes; download it again")


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} is a damaged GGUF file: {why}; download it again")
