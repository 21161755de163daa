"""The LoRAs of a loaded model: merged at load time, exchanged later, switched during a run.

An exchange starts from the base weights of the layers that LoRAs change. They are read from the
model's files the first time a layer changes after loading, and cached. The result equals a fresh
load with the same LoRAs, bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from diffgen.device import send
from diffgen.models.build import build_empty, unet_of
from diffgen.models.deltas import Delta
from diffgen.models.fast.refit import refit, unit_of
from diffgen.models.lora import changed, merge
from diffgen.types import EXACT, Component, Denoiser, LoraRef
from diffgen.weights.adapters.files import Deltas, read_lora
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.reading import Stamp, opened, settled_stamp

logger = logging.getLogger("diffgen")
KEPT = 4  # LoRA files whose tensors stay in memory after an exchange
BEGINNING = (0, 1)  # the first step of a run of one

Base: TypeAlias = tuple[Tensor, Tensor | None]  # a layer's weight and bias
_Key: TypeAlias = tuple[Path, bool, Stamp]  # a LoRA file in the state that was read
# The files and strengths merged into each layer, in the order of the LoRAs.
_Recipe: TypeAlias = Mapping[str, tuple[tuple[_Key, float], ...]]


class Adapters:
    """The networks of one model and the LoRAs merged into them."""

    def __init__(self, checkpoint: Checkpoint, on_change: Callable[[], None]) -> None:
        """`on_change` is called after every exchange of weights."""
        self._checkpoint, self._on_change = checkpoint, on_change
        self._networks: dict[Component, nn.Module] = {}
        self._dtypes: dict[Component, torch.dtype] = {}
        self._recipes: dict[Component, _Recipe] = {}
        self._base: dict[tuple[Component, str], Base] = {}
        self._files: OrderedDict[_Key, Deltas] = OrderedDict()
        self._loras: tuple[tuple[LoraRef, _Key], ...] = ()

    def merge(self, networks: Mapping[Component, nn.Module], loras: Sequence[LoraRef]) -> None:
        """Merge LoRAs into plain networks, just loaded and not prepared yet.

        Raises what `read_lora` raises.
        """
        self._loras = self._read(loras)
        for component, network in networks.items():
            self._networks[component] = network
            self._dtypes[component] = next(network.parameters()).dtype
            recipe = self._recipe(component, self._loras, BEGINNING)
            merge(network, {layer: self._deltas(component, layer, recipe) for layer in recipe})
            self._recipes[component] = recipe
        if self.always:
            self._files.clear()

    def use(self, loras: Sequence[LoraRef]) -> None:
        """Exchange the LoRAs of all networks.

        Raises what `read_lora` raises, and then leaves the weights unchanged.
        """
        start = time.perf_counter()
        read = self._read(loras)
        recipes = {part: self._recipe(part, read, BEGINNING) for part in self._networks}
        self._loras = read
        self._exchange(recipes)
        logger.info("LoRAs exchanged in %.2f s", time.perf_counter() - start)

    @property
    def always(self) -> bool:
        """Whether every LoRA applies to every step."""
        return all(lora.always for lora, _ in self._loras)

    @property
    def any(self) -> bool:
        """Whether there are LoRAs in use."""
        return bool(self._loras)

    def find_not_finite(self) -> tuple[Path, str] | None:
        """A LoRA and the layer that it makes overflow; everything is read again to tell."""
        self._loras = self._read([lora for lora, _ in self._loras])
        for lora, key in self._loras:
            for component, layers in self._files[key].items():
                self._read_base(component, [n for n in layers if (component, n) not in self._base])
                for layer, delta in layers.items():
                    given = [(delta, self._strength(lora, component, layer))]
                    made = changed(*self._base[component, layer], given)
                    if not all(bool(t.isfinite().all()) for t in made if t is not None):
                        return lora.path, layer
        return None

    def follow(self, denoise: Denoiser, sigmas: Sequence[float]) -> Denoiser:
        """A denoiser that evaluates each noise level with the LoRAs of its step."""
        if self.always:
            return denoise
        total, step_at = max(1, len(sigmas) - 1), steps_of_run(sigmas)

        def following(x: Tensor, sigma: float) -> Tensor:
            self._exchange({"unet": self._recipe("unet", self._loras, (step_at(sigma), total))})
            return denoise(x, sigma)

        return following

    def _read(self, loras: Sequence[LoraRef]) -> tuple[tuple[LoraRef, _Key], ...]:
        read = []
        for lora in loras:
            with opened(lora.path) as file:
                key = (lora.path, lora.partial, settled_stamp(file))
            if key not in self._files:
                self._files[key] = read_lora(lora.path, self._checkpoint, partial=lora.partial)
            self._files.move_to_end(key)
            read.append((lora, key))
        while len(self._files) > max(KEPT, len(loras)):
            self._files.popitem(last=False)
        return tuple(read)

    def _recipe(
        self, component: Component, loras: Sequence[tuple[LoraRef, _Key]], step: tuple[int, int]
    ) -> _Recipe:
        recipe: dict[str, tuple[tuple[_Key, float], ...]] = {}
        for lora, key in loras:
            if component == "unet" and not lora.active(*step):
                continue
            for layer in self._files[key].get(component, {}):
                if strength := self._strength(lora, component, layer):
                    recipe[layer] = (*recipe.get(layer, ()), (key, strength))
        return recipe

    def _strength(self, lora: LoraRef, component: Component, layer: str) -> float:
        return lora.strength(component, layer, self._checkpoint.config.level_blocks)

    def _deltas(
        self, component: Component, layer: str, recipe: _Recipe
    ) -> list[tuple[Delta, float]]:
        return [(self._files[key][component][layer], s) for key, s in recipe.get(layer, ())]

    @torch.inference_mode(False)
    def _exchange(self, recipes: Mapping[Component, _Recipe]) -> None:
        different = False
        for component, recipe in recipes.items():
            old = self._recipes[component]
            names = [name for name in {**old, **recipe} if old.get(name) != recipe.get(name)]
            if names:
                self._refit(component, names, recipe)
                different = True
            self._recipes[component] = recipe
        if different:
            self._on_change()

    def _refit(self, component: Component, names: Sequence[str], recipe: _Recipe) -> None:
        network = self._networks[component]
        units = list(dict.fromkeys(unit_of(network, name) for name in names))
        layers = [layer for unit in units for layer in unit.layers]
        self._read_base(component, [n for n in layers if (component, n) not in self._base])

        def weights(layer: str) -> Base:
            weight, bias = self._base[component, layer]
            return changed(weight, bias, self._deltas(component, layer, recipe))

        refit(network, self._plain_unet if component == "unet" else network, units, weights)

    @cached_property
    def _plain_unet(self) -> nn.Module:
        """An unprepared U-Net without weights. Text encoders are never prepared."""
        return build_empty(unet_of, self._checkpoint.config)

    def _read_base(self, component: Component, layers: Sequence[str]) -> None:
        """The weights of layers as loaded, without any LoRA."""
        tensors, dtype = self._checkpoint.tensors[component], self._dtypes[component]
        device = next(self._networks[component].parameters()).device
        names = (f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))
        known = [name for name in names if name in tensors.infos]
        read = {name: send(tensor, device, dtype) for name, tensor in tensors.read(known)}
        for layer in layers:
            self._base[component, layer] = (read[f"{layer}.weight"], read.get(f"{layer}.bias"))


def steps_of_run(sigmas: Sequence[float]) -> Callable[[float], int]:
    """Map a noise level to the number of its step, from 0.

    A level between two steps, where samplers evaluate twice, belongs to the first of them.
    """
    steps = max(1, len(sigmas) - 1)

    def step_at(sigma: float) -> int:
        begun = sum(level >= sigma * (1 - EXACT) for level in sigmas[:steps])
        return max(0, begun - 1)

    return step_at
