"""Classifier-free guidance and the x0 estimate in one pass over memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _guided(
    outputs,
    x,
    out,
    scale,
    keep,
    gain,
    count,
    channels,
    positions,
    half,
    stride_b,
    stride_c,
    stride_p,
    BLOCK: tl.constexpr,
):
    """One block of numbers, in the order of `x`; `half` is where the conditional outputs begin."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    position = place % positions
    channel = place // positions % channels
    batch = place // (positions * channels)
    source = outputs + batch * stride_b + channel * stride_c + position * stride_p
    uncond = tl.load(source, mask=mask, other=0.0).to(tl.float32)
    cond = tl.load(source + half, mask=mask, other=0.0).to(tl.float32)
    state = tl.load(x + place, mask=mask, other=0.0)
    tl.store(out + place, keep * state + gain * (uncond + scale * (cond - uncond)), mask=mask)


def guided(outputs: Tensor, x: Tensor, *, scale: float, keep: float, gain: float) -> Tensor:
    """As `reference.guided`."""
    if outputs.stride(2) != outputs.shape[3] * outputs.stride(3):  # rows are not contiguous
        outputs = outputs.contiguous()
    x = x.contiguous()
    batch, channels, height, width = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _guided[(triton.cdiv(x.numel(), BLOCK),)](
        *(outputs, x, out, scale, keep, gain, x.numel(), channels, height * width),
        *(batch * outputs.stride(0), outputs.stride(0), outputs.stride(1), outputs.stride(3)),
        BLOCK=BLOCK,
    )
    return out
