"""The standard deviation of a small tensor, without torch: it marks v-prediction models of SD 2."""

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
    if info.op is not None or info.dtype not in (*FORMATS, "BF16"):
        return float(LazyTensors({"it": info})["it"].float().std())
    count = prod(info.place.shape)
    size = count * DTYPES[info.dtype][0]
    with opened(info.file) as file:
        file.seek(info.place.start)
        data = file.read(size)
        check_stamp(info.file, file, {info.place.stamp})
    if len(data) < size:
        raise changed(info.file)
    if count < 2:
        raise WeightsError(f"{info.file}: {info.key} has too few numbers to tell anything by")
    return stdev(_numbers(data, info.dtype))


def _numbers(data: bytes, dtype: str) -> list[float]:
    if dtype in FORMATS:
        return list(struct.unpack(f"<{len(data) // DTYPES[dtype][0]}{FORMATS[dtype]}", data))
    upper = array.array("H", data)  # bfloat16 is the upper half of a float32
    if sys.byteorder == "big":
        upper.byteswap()
    return list(struct.unpack(f"<{len(upper)}f", b"".join(struct.pack("<HH", 0, n) for n in upper)))
