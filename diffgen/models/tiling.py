"""Autoencoders in strips: large pictures in less memory, equal to rounding.

Independent tiles differ in brightness, since group norms see one tile alone. Here every layer runs
strip by strip, each with the neighbouring rows that its convolution needs, and norms use the
statistics of the whole map. Maps between two layers stay in CPU memory: a GPU holds one strip at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.models.layers import ResnetBlock
from diffgen.models.vae import (
    Autoencoder,
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    MidBlock,
)

PIXELS = 1 << 16  # of a strip
LEAST_ROWS = 8
Layer = Callable[[Tensor], Tensor]


def decode_tiled(
    vae: Autoencoder, latents: Tensor, *, pixels: int = PIXELS, wraps: bool = False
) -> Tensor:
    """As `vae.decode`: latents (B, C, h, w) to pixels (B, 3, H, W).

    `wraps` means that convolutions see the last row above the first.
    """
    z = vae.post_quant_conv(vae.from_latents(latents))
    return _Strips(latents.device, pixels, wraps=wraps).decoded(vae.decoder, z)


def encode_tiled(vae: Autoencoder, image: Tensor, *, pixels: int = PIXELS) -> tuple[Tensor, Tensor]:
    """As `vae.encode`: pixels (B, 3, H, W) to the mean and log-variance of z, (B, C, h, w) each."""
    moments = _Strips(image.device, pixels).encoded(vae.encoder, image)
    return vae.moments(moments)


class _Strips:
    """Runs layers on strips; maps are (B, C, h, w) on the CPU."""

    def __init__(self, device: torch.device, pixels: int, *, wraps: bool = False) -> None:
        self._device, self._pixels, self._wraps = device, pixels, wraps

    def decoded(self, decoder: Decoder, z: Tensor) -> Tensor:
        x = self._mid(decoder.mid_block, self._layer(decoder.conv_in, z.cpu()))
        for block in decoder.up_blocks.children():
            assert isinstance(block, DecoderBlock)
            for resnet in block.resnets.children():
                x = self._resnet(resnet, x)
            for upsampler in block.upsamplers.children():
                x = self._layer(upsampler, x, grows=2)
        return self._out(decoder.conv_norm_out, decoder.conv_out, x)

    def encoded(self, encoder: Encoder, image: Tensor) -> Tensor:
        x = self._layer(encoder.conv_in, image.cpu())
        for block in encoder.down_blocks.children():
            assert isinstance(block, EncoderBlock)
            for resnet in block.resnets.children():
                x = self._resnet(resnet, x)
            for downsampler in block.downsamplers.children():
                x = self._halved(downsampler, x)
        x = self._mid(encoder.mid_block, x)
        return self._out(encoder.conv_norm_out, encoder.conv_out, x)

    def _mid(self, block: MidBlock, x: Tensor) -> Tensor:
        before, after = block.resnets.children()
        x = self._resnet(before, x)
        if len(block.attentions):  # of the smallest map, whose attention is global
            x = block.attentions(x.to(self._device)).cpu()
        return self._resnet(after, x)

    def _out(self, norm: nn.GroupNorm, conv: nn.Module, x: Tensor) -> Tensor:
        return self._layer(conv, x, ahead=self._norm(norm, x)).to(self._device)

    def _resnet(self, block: nn.Module, x: Tensor) -> Tensor:
        """As the block without a time embedding; the shortcut's sum reuses memory."""
        assert isinstance(block, ResnetBlock)
        y = self._layer(block.conv1, x, ahead=self._norm(block.norm1, x))
        if not isinstance(block.conv_shortcut, nn.Identity):
            x = self._layer(block.conv_shortcut, x)
        self._layer(block.conv2, y, ahead=self._norm(block.norm2, y), onto=x)
        return x

    def _layer(
        self,
        layer: Layer,
        x: Tensor,
        *,
        ahead: Layer | None = None,
        grows: int = 1,
        onto: Tensor | None = None,
    ) -> Tensor:
        """A layer that reads one row above and below; `ahead` precedes it, `onto` is added to."""
        height, out = x.shape[2], onto
        for start, end in self._rows(x):
            above, below, part = self._around(x, start, end)
            made = layer(ahead(part) if ahead else part)
            made = made[:, :, above * grows : made.shape[2] - below * grows]
            if out is None:
                shape = (*made.shape[:2], height * grows, made.shape[3])
                out = torch.empty(shape, dtype=made.dtype)
            place = out[:, :, start * grows : end * grows]
            place.copy_(made) if onto is None else place.add_(made.cpu())
        assert out is not None
        return out

    def _around(self, x: Tensor, start: int, end: int) -> tuple[int, int, Tensor]:
        """The numbers of rows above and below a strip, and the strip with them."""
        height = x.shape[2]
        if self._wraps:
            rows = torch.arange(start - 1, end + 1) % height
            return 1, 1, x[:, :, rows].to(self._device)
        above, below = min(start, 1), min(height - end, 1)
        return above, below, x[:, :, start - above : end + below].to(self._device)

    def _halved(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Each output row reads two input rows and the next, which the layer pads at the end."""
        parts = [
            layer(x[:, :, start : end + 1].to(self._device)).cpu() for start, end in self._rows(x)
        ]
        return torch.cat(parts, dim=2)

    def _norm(self, norm: nn.GroupNorm, x: Tensor) -> Layer:
        """SiLU of the group norm, with the mean and variance of the whole map."""
        groups = norm.num_groups
        total, squares = torch.zeros(2, len(x), groups, dtype=torch.float64, device=self._device)
        for start, end in self._rows(x):
            part = x[:, :, start:end].to(self._device).double().reshape(len(x), groups, -1)
            total += part.sum(2)
            squares += part.square().sum(2)
        count = x[0].numel() // groups
        mean = total / count  # (B, G)
        scale = (squares / count - mean.square() + norm.eps).rsqrt()
        scale, mean = (v.repeat_interleave(x.shape[1] // groups, 1) for v in (scale, mean))
        gain = scale * norm.weight  # (B, C)
        shift = norm.bias - mean * gain
        gain, shift = (v.float()[:, :, None, None] for v in (gain, shift))
        return lambda part: F.silu(part.float() * gain + shift).to(part.dtype)

    def _rows(self, x: Tensor) -> Iterator[tuple[int, int]]:
        """Strips of an even number of rows, as (first, end)."""
        height, width = x.shape[2:]
        step = max(LEAST_ROWS, self._pixels // width // 2 * 2)
        for start in range(0, height, step):
            yield start, min(start + step, height)
