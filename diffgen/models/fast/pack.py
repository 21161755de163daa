"""Prepare networks for inference on the CPU: packed weights and folded upsampling.

scripts/bench_step.py and bench_vae.py measure the gain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffgen.kernels.packed import PackedConv2d, PackedLinear, PackedPointwise, is_pointwise
from diffgen.models.layers import Upsample

# Which taps of a 3-tap kernel (columns) fall on which of two neighbouring pixels (rows), for the
# upper or left copy of a doubled pixel and for its lower or right copy.
TAPS = (((1.0, 0.0, 0.0), (0.0, 1.0, 1.0)), ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


class PackedUpsample(nn.Module):
    """Upsampling by 2 and its 3 x 3 convolution as one 2 x 2 convolution of the small map.

    Of the nine taps on a map of doubled pixels, those on copies of one pixel add up to one tap:
    four products instead of nine (sub-pixel convolution, arXiv:1609.05158). The sums are taken in
    float32 and rounded as any weight is.
    """

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.plain = layer  # for other sizes than twice the map's
        self.doubling = PackedConv2d(fold(layer.conv))

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C, *size); without a `size`, twice the size of x."""
        batch, channels, h, w = x.shape
        if size is not None and tuple(size) != (2 * h, 2 * w):
            out: Tensor = self.plain(x, size)
            return out
        y = self.doubling(x).permute(0, 2, 3, 1).reshape(batch, h + 1, w + 1, 2, 2, channels)
        out = x.new_empty(batch, h, 2, w, 2, channels)  # channels last, as convolutions return it
        for row in (0, 1):
            for column in (0, 1):
                out[:, :, row, :, column] = y[:, row : row + h, column : column + w, row, column]
        return out.view(batch, 2 * h, 2 * w, channels).permute(0, 3, 1, 2)


def fold(conv: nn.Conv2d) -> nn.Conv2d:
    """The 2 x 2 convolution, padded by 1, with 4 C outputs: C for each copy of a pixel."""
    taps = torch.tensor(TAPS)
    weight = torch.einsum("apy,bqx,oiyx->aboipq", taps, taps, conv.weight.float())
    folded = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 2, padding=1, device="meta")
    folded.weight = _constant(weight.flatten(0, 2).to(conv.weight))
    assert conv.bias is not None
    folded.bias = _constant(conv.bias.repeat(4))
    return folded


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def pack_weights(network: nn.Module) -> None:
    """Replace every linear layer and convolution of a network by one with packed weights.

    Irreversible and for inference only: the plain weights are dropped layer by layer.
    """
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.Linear):
            setattr(network, name, PackedLinear(layer))
        elif isinstance(layer, nn.Conv2d):
            packed = PackedPointwise if is_pointwise(layer) else PackedConv2d
            setattr(network, name, packed(layer))
        elif isinstance(layer, Upsample):
            setattr(network, name, PackedUpsample(layer))
        else:
            pack_weights(layer)
