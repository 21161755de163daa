"""Low-rank adapters (Hu et al., arXiv:2106.09685): W + alpha / rank * B A, with A and B trained.

As in files and other programs, A is called "down" and B "up".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from diffgen.models.deltas import Delta

AnyLayer: TypeAlias = nn.Linear | nn.Conv2d


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """The change of one layer.

    `down` is A: (rank, in) for a linear layer, (rank, in, kh, kw) for a convolution; `up` is B:
    (out, rank), or (out, rank, 1, 1).
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """The shared dimension of `down` and `up`."""
        return self.down.shape[0]

    def weight(self) -> Tensor:
        """alpha / rank * B A in float32, of the layer's shape (section 4.1)."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (self.alpha / self.rank * product).reshape(len(self.up), *self.down.shape[1:])

    def change(self, weight: Tensor) -> Tensor:
        """The change of a weight, independent of the weight itself."""
        return self.weight().reshape(weight.shape)

    @property
    def bias(self) -> Tensor | None:
        """The change of the layer's bias: none."""
        return None

    def with_alpha(self, alpha: float) -> LoraDelta:
        """The same delta under another alpha: B takes up the difference."""
        return LoraDelta(self.down, self.up * (self.alpha / alpha), alpha)


class Adapter(nn.Module):
    """Small layers in parallel to a frozen one: alpha / rank * up(down(x)).

    `down` is initialised at random, as any layer of torch (uniform, Kaiming), and `up` with zeros,
    so that training starts from the unchanged network (section 4.1). A convolution's kernel, stride
    and padding are those of `down`.
    """

    def __init__(self, base: AnyLayer, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.down, self.up = _layers(base, rank)
        self.to(base.weight.device)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The change of the layer's output at x."""
        out: Tensor = self.alpha / self.rank * self.up(self.down(x))
        return out

    def delta(self) -> LoraDelta:
        """The current tensors."""
        return LoraDelta(self.down.weight.detach(), self.up.weight.detach(), self.alpha)


def _layers(base: AnyLayer, rank: int) -> tuple[AnyLayer, AnyLayer]:
    if isinstance(base, nn.Linear):
        down = nn.Linear(base.in_features, rank, bias=False)
        return down, nn.Linear(rank, base.out_features, bias=False)
    assert isinstance(base.padding, tuple)
    narrow = nn.Conv2d(
        base.in_channels,
        rank,
        (base.kernel_size[0], base.kernel_size[1]),
        stride=(base.stride[0], base.stride[1]),
        padding=(base.padding[0], base.padding[1]),
        bias=False,
    )
    return narrow, nn.Conv2d(rank, base.out_channels, 1, bias=False)


class AdaptedLayer(nn.Module):
    """A frozen layer with its adapter."""

    def __init__(self, base: AnyLayer, adapter: Adapter) -> None:
        super().__init__()
        self.base, self.adapter = base, adapter

    def forward(self, x: Tensor) -> Tensor:
        """Same shapes as the frozen layer's."""
        out: Tensor = self.base(x) + self.adapter(x)
        return out


def add_lora(
    network: nn.Module, select: Callable[[str], bool], *, rank: int, alpha: float
) -> dict[str, Adapter]:
    """Add an adapter to every selected linear layer and convolution, in place.

    All weights of the network itself are frozen. Returns the adapters by the layers' names.
    """
    network.requires_grad_(False)
    return {
        name: _beside(network, name, base, Adapter(base, rank=rank, alpha=alpha))
        for name, base in _layers_of(network).items()
        if select(name)
    }


@torch.no_grad()
def continue_lora(network: nn.Module, deltas: Mapping[str, LoraDelta]) -> dict[str, Adapter]:
    """As `add_lora`, for the layers that the deltas name, with the deltas as initial values.

    The deltas must fit their layers.
    """
    network.requires_grad_(False)
    adapters = {}
    for name, base in _layers_of(network).items():
        if name in deltas:
            delta = deltas[name]
            adapter = Adapter(base, rank=delta.rank, alpha=delta.alpha)
            adapter.down.weight.copy_(delta.down)
            adapter.up.weight.copy_(delta.up)
            adapters[name] = _beside(network, name, base, adapter)
    return adapters


def _layers_of(network: nn.Module) -> dict[str, AnyLayer]:
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _beside(network: nn.Module, name: str, base: AnyLayer, adapter: Adapter) -> Adapter:
    """Replace a layer of the network by itself and an adapter."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, AdaptedLayer(base, adapter))
    return adapter


# Deltas and their weights, by layer name.
Changes: TypeAlias = Mapping[str, Sequence[tuple[Delta, float]]]


@torch.no_grad()
def merge(network: nn.Module, changes: Changes) -> None:
    """Add weighted deltas to the layers of a plain network without adapters."""
    for name, deltas in changes.items():
        layer = network.get_submodule(name)
        parameters = dict(layer.named_parameters(recurse=False))
        weight, bias = changed(parameters["weight"], parameters.get("bias"), deltas)
        _replace(layer, "weight", weight)
        if bias is not None:
            _replace(layer, "bias", bias)


@torch.no_grad()
def changed(
    weight: Tensor, bias: Tensor | None, deltas: Sequence[tuple[Delta, float]]
) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias with weighted deltas added.

    All deltas of a layer are summed in float32 and rounded once. A bias is made if a delta has one.
    """
    new, new_bias = weight.float(), None if bias is None else bias.float()
    for delta, strength in deltas:
        new = new + strength * delta.change(weight).to(weight.device)
        if delta.bias is not None:
            assert new_bias is not None
            new_bias = new_bias + strength * delta.bias.to(weight.device, torch.float32)
    return new.to(weight.dtype), None if new_bias is None else new_bias.to(weight.dtype)


def _replace(layer: nn.Module, name: str, new: Tensor) -> None:
    old = layer.get_parameter(name)
    layer.register_parameter(name, nn.Parameter(new, requires_grad=old.requires_grad))
