"""Seamless pictures: convolutions that wrap around the edges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.kernels.packed import PackedConv2d
from diffgen.settings.editing import Axes


class Seamless:
    """Makes the convolutions of networks pad with the opposite edge, until `undo`.

    All other layers in these networks are translation-invariant, so that a rolled input gives the
    rolled output.
    """

    def __init__(self, networks: Iterable[nn.Module], axes: Axes) -> None:
        layers = [layer for network in networks for layer in network.modules()]
        convolutions = [x for x in layers if isinstance(x, nn.Conv2d | PackedConv2d)]
        self._wrapped = [_Wrapped(layer, axes) for layer in convolutions if any(_padding(layer))]

    def undo(self) -> None:
        """Restore the networks."""
        for layer in self._wrapped:
            layer.undo()


class Edges:
    """The padding of a network's convolutions: zeros, or the opposite edge."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._seamless: Seamless | None = None
        self.axes: Axes | None = None

    def wrap(self, axes: Axes | None) -> bool:
        """Wrap around along exactly these axes; returns whether that is a change."""
        if axes == self.axes:
            return False
        if self._seamless:
            self._seamless.undo()
        self.axes = axes
        self._seamless = Seamless([self._network], axes) if axes else None
        return True

    def renew(self) -> None:
        """Apply the padding to replaced layers."""
        axes = self.axes
        self.wrap(None)
        self.wrap(axes)


class _Wrapped:
    """One convolution whose padding is applied before it, along the axes."""

    def __init__(self, layer: nn.Conv2d | PackedConv2d, axes: Axes) -> None:
        self._layer, self._own = layer, _padding(layer)
        down, across = self._own
        kept = (0 if "y" in axes else down, 0 if "x" in axes else across)
        _set_padding(layer, kept)
        y, x = down - kept[0], across - kept[1]
        self._sides = (x, x, y, y)
        self._hook = layer.register_forward_pre_hook(self._pad)

    def undo(self) -> None:
        self._hook.remove()
        _set_padding(self._layer, self._own)

    def _pad(self, layer: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        padded: Tensor = F.pad(inputs[0], self._sides, mode="circular")
        return padded


def _padding(layer: nn.Conv2d | PackedConv2d) -> tuple[int, int]:
    sides = layer.geometry[0] if isinstance(layer, PackedConv2d) else layer.padding
    return int(sides[0]), int(sides[1])


def _set_padding(layer: nn.Conv2d | PackedConv2d, padding: tuple[int, int]) -> None:
    if isinstance(layer, PackedConv2d):
        layer.geometry = (list(padding), *layer.geometry[1:])
    else:
        layer.padding = padding
