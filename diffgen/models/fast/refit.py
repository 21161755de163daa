"""Change the weights of some layers in a network prepared for inference.

Preparation merges layers: keys and values become one product, upsampling and its convolution one
module. Each module with a changed layer is prepared again from plain weights, so that the result
equals, bit for bit, a network loaded with these weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from diffgen.kernels.packed import PackedConv2d, PackedLinear, PackedPointwise
from diffgen.models.fast.inference import FusedCrossAttention, FusedSelfAttention
from diffgen.models.fast.pack import PackedUpsample, pack_weights

QKV, KV = ("to_q", "to_k", "to_v"), ("to_k", "to_v")
PACKED = (PackedConv2d, PackedLinear, PackedPointwise, PackedUpsample)

# Weight and bias of a layer, by its canonical name.
Weights: TypeAlias = Callable[[str], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True)
class Unit:
    """A module of a prepared network, and the plain layers merged into it."""

    place: str
    layers: tuple[str, ...]


def unit_of(network: nn.Module, layer: str) -> Unit:
    """The prepared module that contains a plain layer."""
    block, _, last = layer.rpartition(".")
    owner = network.get_submodule(block)
    if isinstance(owner, FusedSelfAttention) and last in QKV:
        return Unit(f"{block}.to_qkv", tuple(f"{block}.{name}" for name in QKV))
    if isinstance(owner, FusedCrossAttention) and last in KV:
        return Unit(f"{block}.to_kv", tuple(f"{block}.{name}" for name in KV))
    if isinstance(owner, PackedUpsample):
        return Unit(block, (layer,))
    return Unit(layer, (layer,))


@torch.no_grad()
def refit(network: nn.Module, plain: nn.Module, units: Iterable[Unit], weights: Weights) -> None:
    """Write weights into units of a prepared network.

    `plain` is the unprepared network; its weights are not read.
    """
    for unit in units:
        given = [weights(layer) for layer in unit.layers]
        weight = torch.cat([each for each, _ in given]) if len(given) > 1 else given[0][0]
        bias = given[0][1] if len(given) == 1 else None  # layers in one have none
        old = network.get_submodule(unit.place)
        if isinstance(old, PACKED):
            parent, _, name = unit.place.rpartition(".")
            new = _packed(plain, unit, weight, bias)
            setattr(network.get_submodule(parent), name, new)
        else:
            _write(old, weight, bias)
    for module in network.modules():
        if isinstance(module, FusedCrossAttention):
            module.forget()


def _write(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Write into the existing memory, which recorded steps read."""
    layer.get_parameter("weight").copy_(weight)
    if bias is not None:
        layer.get_parameter("bias").copy_(bias)


def _copied(module: nn.Module) -> nn.Module:
    """A module whose parts may be replaced; a deep copy would copy what is replaced, too."""
    made = copy.copy(module)
    made._parameters = dict(module._parameters)
    made._modules = {n: each and _copied(each) for n, each in module._modules.items()}
    return made


def _packed(plain: nn.Module, unit: Unit, weight: Tensor, bias: Tensor | None) -> nn.Module:
    if len(unit.layers) > 1:
        made: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer = made
    else:
        made = _copied(plain.get_submodule(unit.place))
        inside = unit.layers[0].removeprefix(unit.place).removeprefix(".")
        layer = made.get_submodule(inside)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    holder = nn.Sequential(made)
    pack_weights(holder)
    return holder[0]
