"""Quantised weights in safetensors files: 8-bit floats are read, packed formats are refused.

8-bit floats are plain casts, or have a scale beside them: one number, or one for each row.
`NAME.scale_weight` in older files of ComfyUI, `NAME.weight_scale` in others and newer ones, which
also name the format in `NAME.comfy_quant`. Packed formats of other programs are recognised by the
tensors beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffgen.errors import UnsupportedCheckpoint
from diffgen.weights.files import LazyTensors, TensorInfo, TensorOp

if TYPE_CHECKING:
    from torch import Tensor

SCALES = (".scale_weight", ".weight_scale")
# For 8-bit arithmetic, which is not used here; and the format, given by the weight's own type.
UNUSED = (".scale_input", ".input_scale", ".comfy_quant")
# Names beside a packed weight, and the format; the first match counts.
MARKS: Mapping[str, re.Pattern[str]] = {
    "4 bits of bitsandbytes": re.compile(r".+\.quant_state\.bitsandbytes__(nf4|fp4)"),
    "8 bits of bitsandbytes": re.compile(r".+\.SCB"),
    "4 bits of NVIDIA's NVFP4": re.compile(r".+\.weight_scale_2"),
    "4 bits of SVDQuant (Nunchaku)": re.compile(r".+\.(wscales|smooth_factor|wtscale)"),
    "integers of GPTQ or AWQ": re.compile(r".+\.(qweight|qzeros)"),
    "integers of SD.Next (SDNQ)": re.compile(r".+\.(zero_point|svd_up)"),
    "integers of Quanto": re.compile(r".+\._(data|scale)"),
}
INTEGERS = ("I8", "U8", "I4", "F4")
TAKE = "take the model in fp16, bf16, fp8 or GGUF"


def refuse_packed(infos: Mapping[str, TensorInfo]) -> None:
    """Raise UnsupportedCheckpoint, naming the format, for packed weights."""
    for name, pattern in MARKS.items():
        if found := next((key for key in infos if pattern.fullmatch(key)), None):
            raise UnsupportedCheckpoint(
                f"its weights are packed in {name} ({found}), which diffgen does not read; {TAKE}"
            )
    for key, info in infos.items():
        if key.endswith(".weight") and info.place.packed is None and info.dtype in INTEGERS:
            raise UnsupportedCheckpoint(
                f"its weights are integers ({key} {info.dtype}), which diffgen does not read; {TAKE}"
            )


def unscaled(infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The same tensors without scales, each multiplied by its scale when read."""
    scales = {
        key.removesuffix(suffix) + ".weight": info
        for suffix in SCALES
        for key, info in infos.items()
        if key.endswith(suffix)
    }
    ignored = (*SCALES, *UNUSED)
    return {
        key: info.after(_times(scales[key])) if key in scales else info
        for key, info in infos.items()
        if not (key.endswith(ignored) and key.rpartition(".")[0] + ".weight" in infos)
    }


def _times(scale: TensorInfo) -> TensorOp:
    def apply(tensor: Tensor) -> Tensor:
        factor = LazyTensors({"scale": scale})["scale"].float()
        return tensor.float() * factor.reshape(-1, *[1] * (tensor.ndim - 1))

    return TensorOp(lambda shape: shape, apply)
