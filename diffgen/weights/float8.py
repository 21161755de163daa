"""Weights in 8-bit floats: plain casts, or numbers to be multiplied by a scale beside them.

A scale is one number, or one for each row: `NAME.scale_weight` as ComfyUI wrote it beside
`NAME.weight`, or `NAME.weight_scale` by others and by later versions of it, which say the format in
`NAME.comfy_quant` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffgen.weights.files import LazyTensors, TensorInfo, TensorOp

if TYPE_CHECKING:
    from torch import Tensor

SCALES = (".scale_weight", ".weight_scale")
# For arithmetic in 8 bits, which is not ours; and the format, which the weight's own type says.
UNUSED = (".scale_input", ".input_scale", ".comfy_quant")


def unscaled(infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The same tensors, those with a scale multiplied by it when they are read, without scales."""
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
