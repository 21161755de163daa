"""Decode GGUF's block formats to float32: the numbers of a block share scales.

The layouts are those of ggml's block_* structures (https://github.com/ggml-org/ggml,
ggml-common.h). Every function takes blocks (N, bytes), uint8, and gives (N, numbers), float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TYPES: Mapping[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    30: "BF16",
}
# Numbers and bytes per block.
BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "F64": (1, 8),
    "I8": (1, 1),
    "I16": (1, 2),
    "I32": (1, 4),
    "I64": (1, 8),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}


def dequantise(data: Tensor, dtype: str) -> Tensor:
    """Decode whole blocks, uint8 of one dimension, to float32 numbers in order."""
    blocks = data.reshape(-1, BLOCKS[dtype][1])
    return FORMATS[dtype](blocks).flatten()


def _half(blocks: Tensor, start: int) -> Tensor:
    """The float16 at a byte offset of each block: (N, 1) float32."""
    import torch

    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """(N, n) bytes -> (N, 2 n): all low halves, then all high ones."""
    import torch

    return torch.cat([packed & 15, packed >> 4], dim=1)


def _bits(packed: Tensor) -> Tensor:
    """(N, n) bytes -> (N, 8 n) bits, lowest first."""
    import torch

    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, :, None] >> shifts) & 1).flatten(1)


def _fields(packed: Tensor, width: int, count: int) -> Tensor:
    """(N, groups, n) bytes -> (N, groups, count, n): fields of `width` bits, lowest first."""
    import torch

    shifts = torch.arange(count, dtype=torch.uint8, device=packed.device) * width
    return (packed[:, :, None, :] >> shifts[:, None]) & ((1 << width) - 1)


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).float() - 8.0)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).float() + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    numbers = _nibbles(blocks[:, 6:]) | (_bits(blocks[:, 2:6]) << 4)
    return _half(blocks, 0) * (numbers.float() - 16.0)


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = _nibbles(blocks[:, 8:]) | (_bits(blocks[:, 4:8]) << 4)
    return _half(blocks, 0) * numbers.float() + _half(blocks, 2)


def _q8_0(blocks: Tensor) -> Tensor:
    import torch

    return _half(blocks, 0) * blocks[:, 2:].view(torch.int8).float()


def _q2_k(blocks: Tensor) -> Tensor:
    """16 scales and 16 minima of 4 bits; numbers of 2 bits in two halves of 128."""
    scales = blocks[:, :16]
    numbers = _fields(blocks[:, 16:80].reshape(-1, 2, 32), 2, 4).reshape(-1, 16, 16).float()
    scale = _half(blocks, 80) * (scales & 15).float()
    minimum = _half(blocks, 82) * (scales >> 4).float()
    return (scale[:, :, None] * numbers - minimum[:, :, None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    """16 scales of 6 bits; numbers of 2 bits and, in the first 32 bytes, a third one each."""
    import torch

    low = _fields(blocks[:, 32:96].reshape(-1, 2, 32), 2, 4).reshape(-1, 8, 32)
    high = _fields(blocks[:, None, :32], 1, 8).reshape(-1, 8, 32)
    numbers = (low | (high << 2)).float() - 4.0
    packed = blocks[:, 96:108]
    lower = torch.cat([packed[:, :8] & 15, packed[:, :8] >> 4], dim=1)
    upper = _fields(packed[:, None, 8:], 2, 4).reshape(-1, 16)
    scale = _half(blocks, 108) * ((lower | (upper << 4)).float() - 32.0)
    return (scale[:, :, None] * numbers.reshape(-1, 16, 16)).flatten(1)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """8 scales and 8 minima of 6 bits, from 12 bytes: (N, 8) float32 each."""
    import torch

    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, (rest & 15) | ((first >> 6) << 4)], dim=1)
    minima = torch.cat([second & 63, (rest >> 4) | ((second >> 6) << 4)], dim=1)
    return scales.float(), minima.float()


def _scaled(blocks: Tensor, numbers: Tensor) -> Tensor:
    """The numbers (N, 8, 32) of Q4_K and Q5_K, with scales and minima applied."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale, minimum = _half(blocks, 0) * scales, _half(blocks, 2) * minima
    return (scale[:, :, None] * numbers.float() - minimum[:, :, None]).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    return _scaled(blocks, _fields(blocks[:, 16:].reshape(-1, 4, 32), 4, 2).reshape(-1, 8, 32))


def _q5_k(blocks: Tensor) -> Tensor:
    low = _fields(blocks[:, 48:].reshape(-1, 4, 32), 4, 2).reshape(-1, 8, 32)
    high = _fields(blocks[:, None, 16:48], 1, 8).reshape(-1, 8, 32)
    return _scaled(blocks, low | (high << 4))


def _q6_k(blocks: Tensor) -> Tensor:
    """16 scales of 8 bits; numbers of 4 bits and 2 bits, in two halves of 128."""
    import torch

    low = _fields(blocks[:, :128].reshape(-1, 2, 64), 4, 2).reshape(-1, 2, 128)
    high = _fields(blocks[:, 128:192].reshape(-1, 2, 32), 2, 4).reshape(-1, 2, 128)
    numbers = (low | (high << 4)).float() - 32.0
    scale = _half(blocks, 208) * blocks[:, 192:208].contiguous().view(torch.int8).float()
    return (scale[:, :, None] * numbers.reshape(-1, 16, 16)).flatten(1)


FORMATS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
