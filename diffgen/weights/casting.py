"""The number format that a tensor is written in, and the change to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from diffgen.errors import WeightsError
from diffgen.weights.files import Shape, TensorInfo
from diffgen.weights.reading import DTYPES

if TYPE_CHECKING:
    from torch import Tensor

Format: TypeAlias = Literal["fp32", "fp16", "bf16", "fp8"]

FORMATS: dict[Format, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "fp8": "F8_E4M3"}
FLOATS = ("F64", "F32", "F16", "BF16")
BESIDE_FP8 = "F16"  # of what is small, or not of the U-Net: it is worth its bytes


def format_of(info: TensorInfo, wanted: Format | None, *, in_8_bits: bool) -> str:
    """What a tensor becomes; None keeps what files can hold by itself.

    In 8 bits are only matrices and kernels, where `in_8_bits` says that they may be.
    """
    if info.dtype in DTYPES and info.dtype not in (*FLOATS, "F8_E4M3", "F8_E5M2"):
        return info.dtype  # whole numbers stay what they are
    if wanted is None:
        plain = info.dtype in FLOATS or (info.dtype.startswith("F8") and info.op is None)
        return info.dtype if plain and not info.place.packed else BESIDE_FP8
    if wanted == "fp8" and not (in_8_bits and _is_matrix(info.shape)):
        return BESIDE_FP8
    return FORMATS[wanted]


def cast(tensor: Tensor, dtype: str, *, name: str) -> Tensor:
    """A tensor in another format, rounded once.

    Raises WeightsError where a number has no place in it or is none.
    """
    import torch

    made = tensor.to(getattr(torch, DTYPES[dtype][1]))
    if made.is_floating_point() and not bool(torch.isfinite(made.float()).all()):
        broken = not bool(torch.isfinite(tensor.float()).all())
        reason = "has numbers that are not finite" if broken else f"overflows in {dtype}"
        raise WeightsError(f"{name} {reason}" + ("" if broken else "; take --dtype bf16 or fp32"))
    return made


def _is_matrix(shape: Shape) -> bool:
    return len(shape) > 1
