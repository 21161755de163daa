"""Weights in 8-bit floats: plain casts, or with a scale tensor beside them.

A scale is one number, or one for each row: `NAME.scale_weight` in older files of ComfyUI,
`NAME.weight_scale` in others and newer ones, which also name the format in `NAME.comfy_quant`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffgen.weights.files import LazyTensors, TensorInfo, TensorOp

if TYPE_CHECKING:
    from torch import Tensor

SCALES = (".scale_weight", ".weight_scale")
# For 8-bit arithmetic, which is not used here; and the format, given by the weight's own type.
UNUSED = (".scale_input", ".input_scale", ".comfy_quant")


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
