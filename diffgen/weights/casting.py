"""The number format to write a tensor in, and the conversion."""

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
BESIDE_FP8 = "F16"  # for small tensors and other networks than the U-Net


def format_of(info: TensorInfo, wanted: Format | None, *, in_8_bits: bool) -> str:
    """The format to write a tensor in; None keeps any format that files support.

    Only matrices and kernels become 8-bit, and only if `in_8_bits` allows it.
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
    """Round a tensor once to another format.

    Raises WeightsError for a number that overflows or is not finite.
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
