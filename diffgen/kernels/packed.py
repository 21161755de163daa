"""Weights laid out once for oneDNN, for networks on the CPU.

oneDNN multiplies blocks of weights that lie together, and otherwise brings them into that order in
every call: 1.7 GB of them in each step of a Stable Diffusion U-Net in bfloat16. The best blocks
depend on the size of the input, so each layer packs its weights for the first input it sees; other
sizes give the same numbers, perhaps slower.
"""

from __future__ import annotations

import platform
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.backends import mkldnn

from diffgen.device import multiplies_bf16

X86: Final = ("x86_64", "AMD64")
NO_FUSION: Final[tuple[Any, ...]] = ("none", [], "")  # what follows the product: nothing


class PackedLinear(nn.Module):
    """A linear layer with packed weights, for inference."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.detach(), layer.bias
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if not self.packed:
            rows = x.numel() // x.shape[-1]
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
            self.packed = True
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *NO_FUSION)
        return out


class PackedConv2d(nn.Module):
    """A convolution with packed weights, for inference."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert isinstance(layer.padding, tuple)
        self.weight, self.bias = layer.weight.detach(), layer.bias
        self.geometry = (
            list(layer.padding),
            list(layer.stride),
            list(layer.dilation),
            layer.groups,
        )
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h', w')."""
        if not self.packed:
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, *self.geometry, list(x.shape)
            )
            self.packed = True
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.geometry, *NO_FUSION
        )
        return out


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing helps: on x86, in float32, and in bfloat16 where that is multiplied.

    On other processors oneDNN calls other libraries; nothing was measured there.
    """
    there = mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    if device.type != "cpu" or platform.machine() not in X86 or not there:
        return False
    if dtype == torch.float32:
        return bool(mkldnn.enabled)
    return dtype == torch.bfloat16 and multiplies_bf16(device)
