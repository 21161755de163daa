"""Weights in oneDNN's block layout, for networks on the CPU.

oneDNN multiplies weights in blocks, and otherwise converts them in every call: 1.7 GB in each step
of a Stable Diffusion U-Net in bfloat16. Each layer packs its weights for the first input it gets.
Inputs of other sizes may need other blocks and pay for a conversion in every call, so layers use
the forms whose blocks depend least on the size.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.backends import mkldnn

from diffgen.device import available_memory, multiplies_bf16

Size: TypeAlias = tuple[int, int]
FEW_PIXELS: Final = 4  # of a map so small that oneDNN always uses other blocks
SPARED: Final = 2 << 30  # bytes of memory that further packings leave free
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
        rows = x.numel() // x.shape[-1]
        if rows == 1:  # a single row has blocks of its own; a second one costs nothing
            return self.forward(x.expand(2, *x.shape))[0]
        if not self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
            self.packed = True
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *NO_FUSION)
        return out


class PackedPointwise(nn.Module):
    """A 1 x 1 convolution as a linear layer of each pixel's channels.

    As a convolution its blocks depend on the size of the map in float32, and oneDNN converts them
    by its slowest code.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        linear = nn.Linear(layer.in_channels, layer.out_channels, device="meta")
        linear.weight = nn.Parameter(layer.weight.flatten(1), requires_grad=False)
        linear.bias = layer.bias  # type: ignore[assignment] # may be None
        self.linear = PackedLinear(linear)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h, w), channels last."""
        out: Tensor = self.linear(x.permute(0, 2, 3, 1))
        return out.permute(0, 3, 1, 2)


class PackedConv2d(nn.Module):
    """A convolution with packed weights, for inference.

    Where blocks depend on the size of the map, weights are packed once for each size. Earlier
    packings stay while memory is plentiful.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert isinstance(layer.padding, tuple)
        self.plain: Tensor | None = layer.weight.detach()
        self.packings: dict[Size, Tensor] = {}
        self.bias = layer.bias
        self.geometry = (
            list(layer.padding),
            list(layer.stride),
            list(layer.dilation),
            layer.groups,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h', w')."""
        size = (x.shape[2], x.shape[3])
        if not blocks_follow_size() and size[0] * size[1] > FEW_PIXELS:
            size = (0, 0)  # all larger maps share one packing
        weight = self.packings.get(size)
        if weight is None:
            weight = self.packings[size] = self._pack(list(x.shape))
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, *self.geometry, *NO_FUSION
        )
        return out

    def _pack(self, shape: list[int]) -> Tensor:
        plain = self.plain
        if plain is None:
            plain = next(iter(self.packings.values())).to_dense()
            if available_memory() < plain.nbytes + SPARED:
                self.packings.clear()
        self.plain = None
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(plain, *self.geometry, shape)
        return packed


@cache
def blocks_follow_size() -> bool:
    """Whether oneDNN's blocks for 3 x 3 convolutions depend on the size of the map.

    With AVX-512 they hardly do, and conversion is quick. With AVX2 they do, and conversion takes
    longer than the convolution of a small map.
    """
    return not torch.cpu._is_avx512_supported()


def is_pointwise(layer: nn.Conv2d) -> bool:
    """Whether a convolution maps each pixel by itself, over all channels."""
    return (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1) and not any(
        layer.padding
    )


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing helps: on x86, in float32, and in bfloat16 if that has instructions.

    On other processors oneDNN calls other libraries, which were not measured.
    """
    there = mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    if device.type != "cpu" or platform.machine() not in X86 or not there:
        return False
    if dtype == torch.float32:
        return bool(mkldnn.enabled)
    return dtype == torch.bfloat16 and multiplies_bf16(device)
