"""Group normalisation with SiLU, and layer normalisation.

Moments are merged piece by piece (Chan, Golub and LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances", 1979): a sum of squares would cancel for a large mean.
Everything except inputs and outputs is float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # numbers one program holds at a time
SPLITS = 16  # at most so many programs share one group of one picture
POSITIONS = 256  # fewer positions than this are not worth another program


@triton.jit
def _merge(count, mean, m2, count_b, mean_b, m2_b):
    """Count, mean and sum of squared deviations of two sets together."""
    total = count + count_b
    delta = mean_b - mean
    share = count_b / total
    return total, mean + delta * share, m2 + m2_b + delta * delta * count * share


@triton.jit
def _group_moments(
    x,
    shift,
    moments,
    group_width,
    positions,
    chunk,
    groups,
    splits,
    stride_b,
    stride_c,
    stride_p,
    SHIFTED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Mean and squared deviation of one chunk of positions of one group -> moments[b, g, s]."""
    row, split = tl.program_id(0), tl.program_id(1)
    batch, group = row // groups, row % groups
    column = tl.arange(0, WIDTH)
    channel = group * group_width + column
    inside = column < group_width
    base = x + batch.to(tl.int64) * stride_b + channel[None, :] * stride_c
    added = tl.zeros((WIDTH,), tl.float32)
    if SHIFTED:
        place = batch * groups * group_width + channel
        added = tl.load(shift + place, mask=inside, other=0.0).to(tl.float32)
    first = split * chunk
    last = tl.minimum(first + chunk, positions)
    count, mean, m2 = 0.0, 0.0, 0.0
    for start in range(first, last, ROWS):
        position = start + tl.arange(0, ROWS)
        mask = (position < last)[:, None] & inside[None, :]
        offset = position.to(tl.int64)[:, None] * stride_p
        tile = tl.load(base + offset, mask=mask, other=0.0).to(tl.float32) + added[None, :]
        tile = tl.where(mask, tile, 0.0)
        count_b = (tl.minimum(last - start, ROWS) * group_width).to(tl.float32)
        mean_b = tl.sum(tl.sum(tile, 1), 0) / count_b
        deviation = tl.where(mask, tile - mean_b, 0.0)
        m2_b = tl.sum(tl.sum(deviation * deviation, 1), 0)
        count, mean, m2 = _merge(count, mean, m2, count_b, mean_b, m2_b)
    out = moments + (row * splits + split) * 2
    tl.store(out, mean)
    tl.store(out + 1, m2)


@triton.jit
def _group_apply(
    x,
    shift,
    moments,
    weight,
    bias,
    out,
    eps,
    group_width,
    positions,
    chunk,
    groups,
    splits,
    stride_b,
    stride_c,
    stride_p,
    SHIFTED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Normalise, scale and pass through SiLU one chunk of positions; `out` is channels_last."""
    row, split = tl.program_id(0), tl.program_id(1)
    batch, group = row // groups, row % groups
    part = tl.arange(0, PARTS)
    known = part < splits
    count = tl.minimum(tl.maximum(positions - part * chunk, 0), chunk) * group_width
    share = tl.where(known, count.to(tl.float32), 0.0) / (positions * group_width)
    pointer = moments + (row * splits + part) * 2
    means = tl.load(pointer, mask=known, other=0.0)
    mean = tl.sum(share * means, 0)
    within = tl.sum(tl.load(pointer + 1, mask=known, other=0.0), 0) / (positions * group_width)
    variance = within + tl.sum(share * (means - mean) * (means - mean), 0)
    scale = 1.0 / tl.sqrt(variance + eps)

    column = tl.arange(0, WIDTH)
    channel = group * group_width + column
    inside = column < group_width
    gain = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) * scale
    offset_c = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    centre = tl.zeros((WIDTH,), tl.float32) + mean
    if SHIFTED:
        place = batch * groups * group_width + channel
        centre -= tl.load(shift + place, mask=inside, other=0.0).to(tl.float32)
    base = x + batch.to(tl.int64) * stride_b + channel[None, :] * stride_c
    channels = groups * group_width
    target = out + batch.to(tl.int64) * positions * channels + channel[None, :]
    first = split * chunk
    last = tl.minimum(first + chunk, positions)
    for start in range(first, last, ROWS):
        position = (start + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (position < last) & inside[None, :]
        tile = tl.load(base + position * stride_p, mask=mask, other=0.0).to(tl.float32)
        y = (tile - centre[None, :]) * gain[None, :] + offset_c[None, :]
        y = y * tl.sigmoid(y)
        tl.store(target + position * channels, y.to(out.dtype.element_ty), mask=mask)


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, shift: Tensor | None
) -> Tensor:
    """As `reference.group_norm_silu`, channels_last, without writing x + shift to memory.

    Two launches: moments of every chunk, then their sum and the rest. A program handles some
    positions of one group, whose few channels are contiguous in channels_last.
    """
    if x.stride(2) != x.shape[3] * x.stride(3):  # rows are not contiguous
        x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    positions, group_width = height * width, channels // groups
    splits = min(SPLITS, triton.cdiv(positions, POSITIONS))
    chunk = triton.cdiv(positions, splits)
    splits = triton.cdiv(positions, chunk)
    padded = triton.next_power_of_2(group_width)
    tiles = {"WIDTH": padded, "ROWS": max(1, TILE // padded), "SHIFTED": shift is not None}
    sizes = (group_width, positions, chunk, groups, splits, x.stride(0), x.stride(1), x.stride(3))
    moments = torch.empty((batch, groups, splits, 2), dtype=torch.float32, device=x.device)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    added = weight if shift is None else shift.contiguous()  # never read without SHIFTED
    grid = (batch * groups, splits)
    _group_moments[grid](x, added, moments, *sizes, **tiles)
    parts = triton.next_power_of_2(splits)
    _group_apply[grid](x, added, moments, weight, bias, out, eps, *sizes, **tiles, PARTS=parts)
    return out


@triton.jit
def _layer_norm(x, weight, bias, out, eps, width, stride, WIDTH: tl.constexpr):
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    mask = column < width
    values = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(values, 0) / width
    centred = tl.where(mask, values - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    offset = tl.load(bias + column, mask=mask, other=0.0).to(tl.float32)
    y = centred * scale * gain + offset
    tl.store(out + row * width + column, y.to(out.dtype.element_ty), mask=mask)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """As `reference.layer_norm`; a row is read once."""
    width = x.shape[-1]
    rows = x.reshape(-1, width)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    out = torch.empty((len(rows), width), dtype=x.dtype, device=x.device)
    padded = triton.next_power_of_2(width)
    _layer_norm[(len(rows),)](rows, weight, bias, out, eps, width, rows.stride(0), WIDTH=padded)
    return out.view(x.shape)
