"""Read adapters of every kind from LoRA files, under every spelling of a model's layers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from diffgen.errors import UnsupportedCheckpoint, WeightsError, some
from diffgen.types import Component
from diffgen.weights.adapters.names import STRAYS, Layer, flat, layer_table, split
from diffgen.weights.adapters.peft import PeftOptions, read_peft_options
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.files import LazyTensors, Shape, open_tensors, read_metadata

if TYPE_CHECKING:
    from torch import Tensor

    from diffgen.models.deltas import Delta

logger = logging.getLogger("diffgen")

Deltas: TypeAlias = "Mapping[Component, Mapping[str, Delta]]"
Keys: TypeAlias = dict[str, str]  # of the parts of one layer's adapter
TABLES = ("token_embedding", "position_embedding")  # matrices, but of no layer that adapters know
NUMBERS = ("alpha", "on_input")
FAMILIES = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "Stable Diffusion XL",
    "custom": "this model",
}
CONTEXTS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # width of the text that a U-Net reads
TRANSFORMERS = re.compile(
    r".*(double_blocks|single_blocks|joint_blocks|single_transformer_blocks).*"
)


@dataclass(slots=True)
class _Sorted:
    """The keys of a file: parts by layer, parts of no layer here, and what is no part."""

    layers: dict[Layer, Keys] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read_lora(path: Path, checkpoint: Checkpoint) -> Deltas:
    """The deltas in a file, by component and canonical name of the layer.

    Raises WeightsError for a file that is missing or damaged, has numbers that are not finite or
    is for another model, UnsupportedCheckpoint for an adapter of a kind that is not read.
    """
    tensors = open_tensors([path])
    shapes = dict(_layers(checkpoint))
    found = _sorted(path, tensors, layer_table(shapes, checkpoint.config))
    if found.unmatched or not found.layers:
        raise _misfit(path, tensors, found, checkpoint)
    strays = [key for key in found.others if not STRAYS.fullmatch(key)]
    if strays or len(found.others) > len(strays):
        logger.warning("%s: not read: %s", path, some(strays or found.others))
    options = read_peft_options(path, read_metadata(path))
    deltas: dict[Component, dict[str, Delta]] = {}
    for layer, keys in found.layers.items():
        made = _Layer(path, layer, shapes[layer], keys, tensors).delta(options, checkpoint)
        deltas.setdefault(layer[0], {})[layer[1]] = made
    return deltas


def _layers(checkpoint: Checkpoint) -> Iterator[tuple[Layer, Shape]]:
    """The layers of a model that have weights, and the shapes of these."""
    for component, tensors in checkpoint.tensors.items():
        for name, info in tensors.infos.items():
            layer = name.removesuffix(".weight")
            if component != "vae" and layer != name and not layer.endswith(TABLES):
                yield (component, layer), info.shape


def _sorted(path: Path, tensors: LazyTensors, table: Mapping[str, Layer]) -> _Sorted:
    found = _Sorted()
    scaled = {key.removesuffix(".on_input") for key in tensors if key.endswith(".on_input")}
    for key in tensors:
        head, _, last = key.rpartition(".")
        name, part = (
            (head, "scaling") if last == "weight" and head in scaled else (split(key) or ("", ""))
        )
        layer = table.get(flat(name)) if part else None
        if layer:
            keys = found.layers.setdefault(layer, {})
            if part in keys:
                raise WeightsError(f"{path}: {keys[part]} and {key} are the same; keep one of them")
            keys[part] = key
        elif part or _begins_with_a_layer(key, table):
            found.unmatched.append(key)
        else:
            found.others.append(key)
    return found


def _begins_with_a_layer(key: str, table: Mapping[str, Layer]) -> bool:
    words = key.split(".")
    return any(flat(".".join(words[:count])) in table for count in range(1, len(words)))


def _misfit(
    path: Path, tensors: LazyTensors, found: _Sorted, checkpoint: Checkpoint
) -> WeightsError:
    """What a file is that does not fit, how much of it does, and an example of what does not."""
    parts = {split(key)[1] for key in tensors if split(key)}  # type: ignore[index]
    if not parts:
        return WeightsError(
            f"{path} is no LoRA that is known: none of its {len(tensors)} tensors is a part of one"
            + (f", such as {some(list(tensors))}" if tensors else "")
        )
    kind, made_for = _kind_name(parts), _made_for(tensors)
    model = FAMILIES[checkpoint.config.family]
    fits = len(tensors) - len(found.unmatched) - len(found.others)
    return WeightsError(
        f"{path} is a {kind} for {made_for} and does not fit {model}: {fits} of its {len(tensors)} "
        f"tensors have a layer there, others do not: {some(found.unmatched or found.others)}"
    )


def _kind_name(parts: set[str]) -> str:
    from diffgen.models.deltas import KINDS

    if parts & {"magnitude", "dora_scale"}:
        return "DoRA"
    own = [kind.label for kind in KINDS.values() if kind.complete(frozenset(parts))]
    return own[0] if own else "LoRA"


def _made_for(tensors: LazyTensors) -> str:
    for key, info in tensors.infos.items():
        if TRANSFORMERS.fullmatch(key):
            return "a diffusion transformer"
        found = split(key)
        if found and found[1] == "down" and flat(found[0]).endswith("attn2_to_k"):
            family = CONTEXTS.get(info.shape[1] if len(info.shape) > 1 else 0)
            return FAMILIES[family] if family else "another model"
    return "another model"


@dataclass(frozen=True, slots=True)
class _Layer:
    """The adapter of one layer in a file."""

    path: Path
    layer: Layer
    shape: Shape
    keys: Mapping[str, str]
    tensors: LazyTensors

    def delta(self, options: PeftOptions, checkpoint: Checkpoint) -> Delta:
        """The adapter, checked against the layer. Raises WeightsError."""
        from diffgen.models.deltas import LayerDelta
        from diffgen.models.lora import LoraDelta

        component, name = self.layer
        parts = {part: self._tensor(part) for part in self.keys if part not in NUMBERS}
        bias = parts.pop("bias", None)
        if bias is not None and not self._fits_bias(bias, checkpoint):
            raise self._misfit(bias.shape)
        magnitude = parts.pop("magnitude", None)
        scale = parts.pop("dora_scale", None) if magnitude is None else magnitude
        kind = self._kind(frozenset(parts), bias is not None)
        if kind == "bias":
            import torch

            return LayerDelta("full", {"diff": torch.zeros(self.shape)}, bias=bias)
        if kind == "ia3" and self._number("on_input"):
            parts["by_input"] = parts["scaling"]
        alpha = self._number("alpha")
        if kind == "lora":
            rank = max(1, len(parts["down"])) if parts["down"].ndim else 1
            alpha = options.alpha(component, name, rank) if alpha is None else alpha
            if bias is not None and self.keys["bias"].endswith(".bias"):  # of B: scaled with it
                bias = bias.float() * alpha / rank
        rows = magnitude is not None or scale is None or not self._of_columns(scale)
        delta = LayerDelta(kind, parts, alpha, scale, rows, bias)
        self._check_fit(delta)
        plain = kind == "lora" and set(parts) == {"down", "up"} and scale is None and bias is None
        if plain and alpha is not None and parts["down"].ndim == len(self.shape):
            return LoraDelta(parts["down"], parts["up"], alpha)
        return delta

    def _kind(self, given: frozenset[str], has_bias: bool) -> str:
        from diffgen.models.deltas import KINDS

        given |= {"on_input"} & self.keys.keys()
        if not given and has_bias:
            return "bias"
        for name, kind in KINDS.items():
            if given <= kind.parts and kind.complete(given):
                return name
        for kind in KINDS.values():
            if given and given <= kind.parts:
                raise WeightsError(
                    f"{self.path} is incomplete: half of the adapter of {self.layer[1]} is missing"
                )
        raise UnsupportedCheckpoint(
            f"{self.path} changes {self.layer[1]} in a way that is not read: "
            f"{some(list(self.keys.values()))}"
        )

    def _tensor(self, part: str) -> Tensor:
        tensor = self.tensors[self.keys[part]]
        if not bool(tensor.float().isfinite().all()):
            raise WeightsError(
                f"{self.path}: {self.keys[part]} has numbers that are not finite; its training "
                "failed"
            )
        return tensor

    def _number(self, part: str) -> float | None:
        if part not in self.keys:
            return None
        shape = self.tensors.infos[self.keys[part]].shape
        if prod(shape) != 1:
            raise WeightsError(
                f"{self.path}: the {part} of {self.layer[1]} should be one number, not {shape}"
            )
        return float(self._tensor(part).float())

    def _of_columns(self, scale: Tensor) -> bool:
        """Whether a DoRA's norms are those of the inputs, (1, in, ...), as first written."""
        return scale.ndim > 1 and scale.shape[0] == 1 != self.shape[0]

    def _fits_bias(self, bias: Tensor, checkpoint: Checkpoint) -> bool:
        component, name = self.layer
        own = checkpoint.tensors[component].infos.get(f"{name}.bias")
        return own is not None and own.shape == tuple(bias.shape)

    def _check_fit(self, delta: Delta) -> None:
        """Try the arithmetic on shapes alone."""
        from dataclasses import replace

        import torch

        from diffgen.models.deltas import LayerDelta

        assert isinstance(delta, LayerDelta)
        dry = replace(
            delta, parts={k: torch.empty_like(t, device="meta") for k, t in delta.parts.items()}
        )
        try:
            made = tuple(dry.difference(torch.empty(self.shape, device="meta")).shape)
        except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:
            raise self._misfit() from error
        count = (
            self.shape[0] if delta.magnitude_of_rows else self.shape[min(1, len(self.shape) - 1)]
        )
        magnitude = delta.magnitude
        if (
            made[:2] != self.shape[:2]
            or prod(made) != prod(self.shape)
            or (magnitude is not None and magnitude.numel() != count)
        ):
            raise self._misfit()

    def _misfit(self, *shapes: Shape) -> WeightsError:
        given = shapes or [
            self.tensors.infos[key].shape for part, key in self.keys.items() if part not in NUMBERS
        ]
        return WeightsError(
            f"{self.path} does not fit this model: {self.layer[1]} is {self.shape}, and the "
            f"adapter's shapes are {' and '.join(str(tuple(shape)) for shape in given)}"
        )
