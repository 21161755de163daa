"""The numbers of a small tensor and their spread, without torch: marks of how it was trained."""

from __future__ import annotations

import array
import struct
import sys
from math import prod
from statistics import stdev

from diffgen.errors import WeightsError
from diffgen.weights.files import LazyTensors, TensorInfo
from diffgen.weights.reading import DTYPES, changed, check_stamp, opened

FORMATS = {"F16": "e", "F32": "f", "F64": "d"}


def spread(info: TensorInfo) -> float:
    """The standard deviation of a tensor's numbers, as torch's `std`. Raises WeightsError."""
    found = numbers(info)
    if len(found) < 2:
        raise WeightsError(f"{info.file}: {info.key} has too few numbers to tell anything by")
    return stdev(found)


def numbers(info: TensorInfo) -> list[float]:
    """A tensor's numbers in one row. Raises WeightsError."""
    if info.op is not None or info.dtype not in (*FORMATS, "BF16"):
        tensor = LazyTensors({"it": info})["it"]
        return [float(number) for number in tensor.float().flatten().tolist()]
    size = prod(info.place.shape) * DTYPES[info.dtype][0]
    with opened(info.file) as file:
        file.seek(info.place.start)
        data = file.read(size)
        check_stamp(info.file, file, {info.place.stamp})
    if len(data) < size:
        raise changed(info.file)
    return _numbers(data, info.dtype)


def _numbers(data: bytes, dtype: str) -> list[float]:
    if dtype in FORMATS:
        return list(struct.unpack(f"<{len(data) // DTYPES[dtype][0]}{FORMATS[dtype]}", data))
    upper = array.array("H", data)  # bfloat16 is the upper half of a float32
    if sys.byteorder == "big":
        upper.byteswap()
    return list(struct.unpack(f"<{len(upper)}f", b"".join(struct.pack("<HH", 0, n) for n in upper)))
