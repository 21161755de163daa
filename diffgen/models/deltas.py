"""The change that each kind of adapter makes to a layer, given the layer's own weight W.

LoRA (arXiv:2106.09685) with kernels and Tucker cores, LoHa, LoKr, GLoRA (arXiv:2306.07967), (IA)^3
(arXiv:2205.05638), OFT (arXiv:2306.07280), BOFT (arXiv:2311.06243) and full differences in the
forms that LyCORIS (arXiv:2309.14859) writes; DoRA (arXiv:2402.09353) on top of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from diffgen.models.rotations import rotated_inputs, rotated_outputs

Parts: TypeAlias = Mapping[str, Tensor]
Difference: TypeAlias = Callable[[Tensor, Parts, float | None], Tensor]


class Delta(Protocol):
    """The change of one layer by one adapter."""

    def change(self, weight: Tensor) -> Tensor:
        """The change of the layer's weight, in float32 and of its shape."""

    @property
    def bias(self) -> Tensor | None:
        """The change of the layer's bias."""


@dataclass(frozen=True, slots=True)
class LayerDelta:
    """An adapter of any kind.

    `parts` are its tensors by the names of `KINDS`; `alpha` scales it by alpha / rank, None means
    1. `magnitude` makes it a DoRA: the norms of the merged weight's rows, or else columns.
    """

    kind: str
    parts: Parts
    alpha: float | None = None
    magnitude: Tensor | None = None
    magnitude_of_rows: bool = True
    bias: Tensor | None = None

    def change(self, weight: Tensor) -> Tensor:
        """The change of the layer's weight, in float32 and of its shape."""
        whole = weight.float()
        added = self.difference(whole).reshape(whole.shape)
        if self.magnitude is None:
            return added
        merged = whole + added
        across = [d for d in range(merged.ndim) if d != (0 if self.magnitude_of_rows else 1)]
        norm = torch.linalg.vector_norm(merged, dim=across, keepdim=True)
        epsilon = torch.finfo(torch.float32).eps
        scaled: Tensor = self.magnitude.float().reshape(norm.shape) / (norm + epsilon) * merged
        return scaled - whole

    def difference(self, weight: Tensor) -> Tensor:
        """The change before the magnitude, in whatever shape the parts give."""
        parts = {
            name: tensor.to(weight.device, torch.float32) for name, tensor in self.parts.items()
        }
        return KINDS[self.kind].difference(weight, parts, self.alpha)


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank


def _tucker(core: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """(r, s, kh, kw), (out, r), (s, in) -> (out, in, kh, kw)."""
    return torch.einsum("rs...,or,si->oi...", core, out, into)


def _lora(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """alpha / r * B A; `mid` is the kernel of a convolution between two 1x1 ones."""
    down, up = p["down"], p["up"]
    if "mid" in p:
        product = _tucker(p["mid"], up.flatten(1), down.flatten(1))
    else:
        product = up.flatten(1) @ down.flatten(1)
        whole = product.numel() == weight.numel()  # a kernel may lie flat in the file
        product = product.reshape(weight.shape if whole else (len(up), *down.shape[1:]))
    return _scale(alpha, len(down)) * product


def _loha(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """alpha / r * (A1 B1) o (A2 B2), elementwise; with cores A is stored transposed."""

    def factor(n: int) -> Tensor:
        a, b = p[f"w{n}_a"], p[f"w{n}_b"]
        return _tucker(p[f"t{n}"], a.t(), b) if f"t{n}" in p else a @ b

    return (_scale(alpha, len(p["w1_b"])) * factor(1) * factor(2)).reshape(weight.shape)


def _lokr(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """kron(C, D), times alpha / r where C or D is a product of rank r."""
    ranks = [len(p[name]) for name in ("lokr_w2_b", "lokr_w1_b") if name in p]
    first = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    if "lokr_t2" in p:
        second = _tucker(p["lokr_t2"], p["lokr_w2_a"].t(), p["lokr_w2_b"]).contiguous()
    else:
        whole = "lokr_w2" in p
        second = p["lokr_w2"] if whole else p["lokr_w2_a"] @ p["lokr_w2_b"].flatten(1)
        second = second.reshape(len(second), -1, *weight.shape[2:])
    first = first.reshape(*first.shape, *[1] * (second.ndim - first.ndim))
    return (_scale(alpha, ranks[0]) if ranks else 1.0) * torch.kron(first, second)


def _full(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    return p["diff"]


def _ia3(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """W times one number for each input, or each output."""
    axis = 1 if "by_input" in p else 0
    if p["scaling"].numel() != weight.shape[axis]:
        raise ValueError("one number for each row or column")
    return weight * p["scaling"].reshape(*[-1 if d == axis else 1 for d in range(weight.ndim)])


def _glora(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """alpha / r * (W A1 A2 + B1 B2); old files store the factors in the other order."""
    a1, a2, b1, b2 = (p[name].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    if a1.shape[0] != weight.shape[1]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    through = torch.einsum("oi...,ir,rj->oj...", weight, a1, a2)
    return _scale(alpha, len(a2)) * (through + (b1 @ b2).reshape(weight.shape))


def _scaled(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """The same with the whole numbers, 1 for no change."""
    return _ia3(weight, {**p, "scaling": p["scales"] - 1}, alpha)


def _whole(weight: Tensor, p: Parts, alpha: float | None) -> Tensor:
    """From W to the weights in the file."""
    return p["whole"].reshape(weight.shape) - weight


@dataclass(frozen=True, slots=True)
class Kind:
    """A method: its name for users, its required parts (one set per group) and optional ones."""

    label: str
    difference: Difference
    needs: tuple[tuple[frozenset[str], ...], ...]
    may: frozenset[str] = frozenset()

    @property
    def parts(self) -> frozenset[str]:
        """All known parts."""
        return self.may.union(*(names for group in self.needs for names in group))

    def complete(self, given: frozenset[str]) -> bool:
        """Whether no required part is missing."""
        return all(any(names <= given for names in group) for group in self.needs)


def _all(*names: str) -> tuple[frozenset[str], ...]:
    return (frozenset(names),)


KINDS: Mapping[str, Kind] = {
    "lora": Kind("LoRA", _lora, (_all("down", "up"),), frozenset({"mid"})),
    "loha": Kind("LoHa", _loha, (_all("w1_a", "w1_b", "w2_a", "w2_b"),), frozenset({"t1", "t2"})),
    "lokr": Kind(
        "LoKr",
        _lokr,
        (
            _all("lokr_w1") + _all("lokr_w1_a", "lokr_w1_b"),
            _all("lokr_w2") + _all("lokr_w2_a", "lokr_w2_b"),
        ),
        frozenset({"lokr_t2"}),
    ),
    "full": Kind("full difference", _full, (_all("diff"),)),
    "ia3": Kind("IA3", _ia3, (_all("scaling", "on_input"),)),
    "glora": Kind("GLoRA", _glora, (_all("a1", "a2", "b1", "b2"),)),
    "scaled": Kind("IA3", _scaled, (_all("scales"),), frozenset({"by_input"})),
    "oft": Kind("OFT", rotated_outputs, (_all("blocks"),), frozenset({"rescale"})),
    "turned": Kind("OFT", rotated_inputs, (_all("turns"),), frozenset({"rows"})),
    "whole": Kind("whole weights", _whole, (_all("whole"),)),
}
