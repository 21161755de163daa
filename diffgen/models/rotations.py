"""Orthogonal adapters: rotations of a layer's outputs (LyCORIS) or of its inputs (PEFT).

OFT (arXiv:2306.07280) rotates blocks, BOFT (arXiv:2311.06243) a butterfly of them. A rotation comes
from a skew matrix Q by Cayley's transform, (I - Q)(I + Q)^-1 or its inverse.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def rotated_outputs(weight: Tensor, p: Mapping[str, Tensor], alpha: float | None) -> Tensor:
    """R W - W with a block-diagonal rotation of the outputs, or a butterfly of several.

    Files store the bound of a rotation as alpha, for each output.
    """
    turns, turned = _bounded(p["blocks"], (alpha or 0.0) * len(weight)), weight
    if turns.ndim == 3:
        size = turns.shape[-1]
        turned = weight.reshape(-1, size, *weight.shape[1:])
        turned = torch.einsum("knm,kn...->km...", turns, turned).reshape(weight.shape)
    else:
        for stage, blocks in enumerate(turns):
            turned = _butterfly(turned, blocks, stage)
    if "rescale" in p:
        turned = turned * p["rescale"].reshape(-1, *[1] * (weight.ndim - 1))
    return turned - weight


def rotated_inputs(weight: Tensor, p: Mapping[str, Tensor], alpha: float | None) -> Tensor:
    """s W R^T - W, where a kernel counts as a row of all its inputs.

    `turns` are the rotations (blocks, size, size), one for all or each its own, or those of each
    stage of a butterfly; `rows` is s, one factor for each output.
    """
    turned, stages = weight.flatten(1), p["turns"]
    for stage, blocks in enumerate(stages if stages.ndim == 4 else stages[None]):
        near, half = 2**stage, blocks.shape[-1] // 2
        if stage:  # halves of a block lie `near` halves apart
            turned = turned.reshape(len(turned), -1, 2, near, half).transpose(2, 3)
        mixed = turned.reshape(len(turned), -1, blocks.shape[-1])
        turned = torch.einsum("okd,kcd->okc", mixed, blocks.expand(mixed.shape[1], -1, -1))
        if stage:
            turned = turned.reshape(len(turned), -1, near, 2, half).transpose(2, 3)
        turned = turned.flatten(1)
    turned = turned.reshape(weight.shape)
    if "rows" in p:
        turned = turned * p["rows"].reshape(-1, *[1] * (weight.ndim - 1))
    return turned - weight


def skew_of(upper: Tensor) -> Tensor:
    """Skew matrices (n, size, size) of the numbers above their diagonals. Raises ValueError."""
    size = round((1 + (1 + 8 * upper.shape[-1]) ** 0.5) / 2)
    if size * (size - 1) // 2 != upper.shape[-1]:
        raise ValueError(f"{upper.shape[-1]} numbers are no triangle")
    rows, columns = torch.triu_indices(size, size, 1)
    skew = torch.zeros(len(upper), size, size)
    skew[:, rows, columns] = upper.float()
    return skew - skew.transpose(-1, -2)


def clipped(skew: Tensor, bound: float) -> Tensor:
    """Skew matrices whose norms are at most `bound`, divided by the root of their number."""
    norms: Tensor = torch.linalg.matrix_norm(skew, keepdim=True)
    share: Tensor = (bound / len(skew) ** 0.5 / norms).clamp(max=1.0)
    return skew * share


def cayley(skew: Tensor, terms: int | None = None) -> Tensor:
    """(I - Q)(I + Q)^-1, or as PEFT nears its inverse: I + 2Q + 2Q^2 + ... + Q^n by `terms`."""
    one = torch.eye(skew.shape[-1]).expand_as(skew)
    if terms is None:
        solved: Tensor = torch.linalg.solve(one + skew, one - skew, left=False)
        return solved
    if terms < 3:
        return one + 2 * skew if terms == 2 else one
    found, power = one + 2 * skew, skew
    for _ in range(max(1, terms - 3)):
        power = power @ skew
        found = found + 2 * power
    return found + power @ skew


def _bounded(blocks: Tensor, bound: float) -> Tensor:
    """(I + Q)(I - Q)^-1 of Q = B - B^T, clipped to the norm `bound` unless that is 0."""
    skew = blocks - blocks.transpose(-1, -2)
    if bound:
        norm = skew.norm() + 1e-8
        skew = skew * torch.clamp(bound / norm, max=1.0)
    one = torch.eye(blocks.shape[-1], device=blocks.device)
    if blocks.device.type == "meta":
        return skew
    turns: Tensor = (one + skew) @ torch.linalg.inv(one - skew)
    return turns


def _butterfly(weight: Tensor, blocks: Tensor, stage: int) -> Tensor:
    """Rotate outputs that are 2^stage half-blocks apart."""
    size, rest = blocks.shape[-1], weight.shape[1:]
    half = 2**stage * (size // 2)
    mixed = weight.reshape(-1, 2, half, *rest).transpose(1, 2).reshape(-1, size, *rest)
    mixed = torch.einsum("bij,bj...->bi...", blocks, mixed)
    return mixed.reshape(-1, half, 2, *rest).transpose(1, 2).reshape(weight.shape)
