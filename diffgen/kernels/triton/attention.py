"""Attention without the matrix of logits in memory (FlashAttention-2, Dao, arXiv:2307.08691)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

LOG2_E = 1.4426950408889634
# Rows of queries and of keys per program, by the padded head width. Fixed, not tuned on first
# use: a command that makes one picture must not wait for that.
BLOCKS = {16: (128, 64), 32: (128, 64), 64: (128, 64), 128: (64, 64), 256: (64, 32)}


@triton.jit
def _rows(pointer, row, stride, column, mask):
    """A block of rows; zero outside the mask."""
    offset = row.to(tl.int64)[:, None] * stride + column[None, :]
    return tl.load(pointer + offset, mask=mask, other=0.0)


@triton.jit
def _product(a, b, WIDEN: tl.constexpr):
    """A matrix product summed in float32; `WIDEN` says the same of float32 factors."""
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _attention(
    q,
    k,
    v,
    out,
    scale,
    heads,
    queries,
    keys,
    width,
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """One block of queries of one head, against all keys (algorithm 1 of the paper)."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    column = tl.arange(0, WIDTH)
    mask = (row < queries)[:, None] & (column < width)[None, :]
    query = _rows(q + batch * q_batch + head * q_head, row, q_row, column, mask)
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    result = tl.zeros((QUERIES, WIDTH), tl.float32)
    for start in range(0, keys, KEYS):
        other = start + tl.arange(0, KEYS)
        exists = (other < keys)[:, None] & (column < width)[None, :]
        key = _rows(k, other, k_row, column, exists)
        # In units of log 2, for exp2 is what the hardware has.
        logits = _product(query, tl.trans(key), WIDEN) * scale
        logits = tl.where((other < keys)[None, :], logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, 1))
        weights = tl.exp2(logits - higher[:, None])
        fading = tl.exp2(highest - higher)
        total = total * fading + tl.sum(weights, 1)
        value = _rows(v, other, v_row, column, exists)
        result = result * fading[:, None]
        result += _product(weights.to(value.dtype), value, WIDEN)
        highest = higher
    result = result / total[:, None]
    # `out` is (B, T, heads, D), the order in which the heads are joined.
    target = out + (batch * queries * heads + head) * width
    offset = row.to(tl.int64)[:, None] * (heads * width) + column[None, :]
    tl.store(target + offset, result.to(out.dtype.element_ty), mask=mask)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `reference.attention`; the result lies in memory as (B, T, heads, D)."""
    q, k, v = (x if x.stride(3) == 1 else x.contiguous() for x in (q, k, v))
    batch, heads, queries, width = q.shape
    padded = max(16, triton.next_power_of_2(width))  # a tensor core multiplies 16 at least
    rows, columns = BLOCKS[padded]
    rows = min(rows, max(16, triton.next_power_of_2(queries)))
    # Triton's interpreter takes bfloat16 factors for whole numbers.
    widen = knobs.runtime.interpret and q.dtype == torch.bfloat16
    out = torch.empty((batch, queries, heads, width), dtype=q.dtype, device=q.device)
    strides = [stride for x in (q, k, v) for stride in x.stride()[:3]]
    _attention[(triton.cdiv(queries, rows), batch * heads)](
        *(q, k, v, out),
        *(width**-0.5 * LOG2_E, heads, queries, k.shape[2], width),
        *strides,
        WIDTH=padded,
        QUERIES=rows,
        KEYS=columns,
        WIDEN=widen,
    )
    return out.transpose(1, 2)
