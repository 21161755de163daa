"""Read adapters of every kind from LoRA files, under every naming of a model's layers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial as partial_of
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from diffgen.errors import WeightsError, some
from diffgen.types import Component
from diffgen.weights.adapters.layer import AdapterOfLayer
from diffgen.weights.adapters.misfit import misfit
from diffgen.weights.adapters.names import STRAYS, Layer, flat, layer_table, split
from diffgen.weights.adapters.orthogonal import unsaid
from diffgen.weights.adapters.peft import read_peft_options
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.files import LazyTensors, Shape, open_tensors, read_metadata
from diffgen.weights.textual_inversion import BUNDLED

if TYPE_CHECKING:
    from torch import Tensor

    from diffgen.models.deltas import Delta

logger = logging.getLogger("diffgen")

Deltas: TypeAlias = "Mapping[Component, Mapping[str, Delta]]"
Keys: TypeAlias = dict[str, str]  # of the parts of one layer's adapter
TABLES = ("token_embedding", "position_embedding")  # matrices that adapters never change


@dataclass(slots=True)
class _Sorted:
    """The keys of a file: adapter parts by layer, parts of unknown layers, and other keys."""

    layers: dict[Layer, Keys] = field(default_factory=dict)
    thirds: dict[Layer, int] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read_lora(path: Path, checkpoint: Checkpoint, *, partial: bool = False) -> Deltas:
    """The deltas in a file, by component and canonical name of the layer.

    A key that is no adapter part is logged. A delta without a layer in the model is an error, or
    with `partial` a warning, as long as some fit. Raises WeightsError for a file that is missing,
    damaged, not finite or for another model, UnsupportedCheckpoint for an unsupported kind of
    adapter.
    """
    tensors, metadata = open_tensors([path]), read_metadata(path)
    shapes, biases = layers_of(checkpoint)
    found = _sorted(path, tensors, layer_table(shapes, checkpoint.config))
    if not found.layers or (found.unmatched and not partial):
        strange = found.unmatched or found.others
        fits = len(tensors) - len(found.unmatched) - len(found.others)
        raise misfit(path, tensors, strange, fits, checkpoint.config, metadata)
    _report(path, found, len(tensors))
    options = read_peft_options(path, metadata)
    options.refuse_changed_base()
    for open_question in dict.fromkeys(unsaid(keys, options) for keys in found.layers.values()):
        if open_question:
            logger.warning("%s has no adapter_config.json beside it to say %s", path, open_question)
    deltas: dict[Component, dict[str, Delta]] = {}
    for layer, keys in found.layers.items():
        adapter = AdapterOfLayer(
            path,
            layer,
            shapes[layer],
            biases.get(layer),
            keys,
            tensors,
            partial_of(_base_bias, checkpoint, layer),
            found.thirds.get(layer),
        )
        deltas.setdefault(layer[0], {})[layer[1]] = adapter.delta(options)
    return deltas


def _base_bias(checkpoint: Checkpoint, layer: Layer) -> Tensor:
    return checkpoint.tensors[layer[0]][f"{layer[1]}.bias"]


def _report(path: Path, found: _Sorted, count: int) -> None:
    if found.unmatched:
        logger.warning(
            "%s: %d of its %d tensors have no layer here and are left out: %s",
            path,
            len(found.unmatched),
            count,
            some(found.unmatched),
        )
    others = [key for key in found.others if not BUNDLED.fullmatch(key)]
    strays = [key for key in others if not STRAYS.fullmatch(key)]
    if others:
        logger.warning("%s: not read: %s", path, some(strays or others))


def layers_of(checkpoint: Checkpoint) -> tuple[dict[Layer, Shape], dict[Layer, Shape]]:
    """The shapes of a model's weights and of its biases, by layer."""
    weights: dict[Layer, Shape] = {}
    biases: dict[Layer, Shape] = {}
    for component, tensors in checkpoint.tensors.items():
        for name, info in tensors.infos.items():
            layer, _, kind = name.rpartition(".")
            if component != "vae" and not layer.endswith(TABLES):
                if kind == "weight":
                    weights[component, layer] = info.shape
                elif kind == "bias":
                    biases[component, layer] = info.shape
    return weights, biases


def _sorted(path: Path, tensors: LazyTensors, table: Mapping[str, tuple[Layer, ...]]) -> _Sorted:
    found = _Sorted()
    scaled = {key.removesuffix(".on_input") for key in tensors if key.endswith(".on_input")}
    for key in tensors:
        head, _, last = key.rpartition(".")
        name, part = (
            (head, "scaling") if last == "weight" and head in scaled else (split(key) or ("", ""))
        )
        layers = table.get(flat(name), ()) if part else ()
        for index, layer in enumerate(layers):
            keys = found.layers.setdefault(layer, {})
            if part in keys:
                raise WeightsError(f"{path}: {keys[part]} and {key} are the same; keep one of them")
            keys[part] = key
            if len(layers) > 1:
                found.thirds[layer] = index
        if not layers:
            strange = bool(part) or _begins_with_a_layer(key, table)
            (found.unmatched if strange else found.others).append(key)
    for layer in [layer for layer, keys in found.layers.items() if set(keys) == {"alpha"}]:
        found.others += found.layers.pop(layer).values()  # scales nothing
    return found


def _begins_with_a_layer(key: str, table: Mapping[str, tuple[Layer, ...]]) -> bool:
    words = key.split(".")
    return any(flat(".".join(words[:count])) in table for count in range(1, len(words)))
