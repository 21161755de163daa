"""The adapter of one layer in a file: tensors read, checked and converted to a delta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from diffgen.errors import UnsupportedCheckpoint, WeightsError, some
from diffgen.weights.adapters.misfit import FAMILIES, family_of
from diffgen.weights.adapters.names import Layer
from diffgen.weights.adapters.orthogonal import prepared, unsqueezed
from diffgen.weights.adapters.peft import PeftOptions
from diffgen.weights.files import LazyTensors, Shape

if TYPE_CHECKING:
    from torch import Tensor

    from diffgen.models.deltas import Delta, LayerDelta

NUMBERS = ("alpha", "on_input")
BY_OUTPUT = ("up", "diff", "bias", "dora_scale", "magnitude")  # parts with a row for each output
RANKS = {"lora": ("down",), "loha": ("w1_b",), "lokr": ("lokr_w2_b", "lokr_w1_b")}


@dataclass(frozen=True, slots=True)
class AdapterOfLayer:
    """The tensors of one layer's adapter, by part.

    `third` picks the queries, keys or values of an adapter that covers all three; `base_bias`
    reads the layer's own bias.
    """

    path: Path
    layer: Layer
    shape: Shape
    bias: Shape | None
    keys: Mapping[str, str]
    tensors: LazyTensors
    base_bias: Callable[[], Tensor]
    third: int | None = None

    def delta(self, options: PeftOptions) -> Delta:
        """The adapter, checked against the layer. Raises WeightsError."""
        from diffgen.models.deltas import LayerDelta
        from diffgen.models.lora import LoraDelta

        try:
            found = {part: self._tensor(part) for part in self.keys if part not in NUMBERS}
            parts = prepared(unsqueezed(found), self.layer, self.shape, options)
        except ValueError as error:
            raise self._misfit() from error
        of_b = parts.get("bias") if self.keys.get("bias", "").endswith(".bias") else None
        bias = self._bias(parts)
        magnitude = parts.pop("magnitude", None)
        scale = parts.pop("dora_scale", None) if magnitude is None else magnitude
        kind = self._kind(frozenset(parts), bias is not None)
        if kind == "bias":
            import torch

            return LayerDelta("full", {"diff": torch.zeros(self.shape)}, bias=bias)
        if kind == "ia3" and self._number("on_input"):
            parts["by_input"] = parts["scaling"]
        alpha = self._alpha(kind, parts, options)
        rows = magnitude is not None or scale is None or not self._of_columns(scale)
        delta = LayerDelta(kind, parts, alpha, scale, rows, bias)
        self._check_fit(delta)
        if kind == "lora" and bias is not None and of_b is not None:
            share = 1.0 if alpha is None else alpha / len(parts["down"])
            return replace(delta, bias=bias + (share - 1.0) * of_b.float())  # scaled as B is
        plain = kind == "lora" and set(parts) == {"down", "up"} and scale is None and bias is None
        if plain and alpha is not None and parts["down"].ndim == len(self.shape):
            return LoraDelta(parts["down"], parts["up"], alpha)
        return delta

    def _bias(self, parts: dict[str, Tensor]) -> Tensor | None:
        """What is added to the layer's bias; its parts are taken out."""
        bias, whole = parts.pop("bias", None), parts.pop("whole_bias", None)
        for given in (bias, whole):
            if given is not None and tuple(given.shape) != self.bias:
                raise self._misfit(given.shape)
        if whole is not None:
            whole = whole.float() - self.base_bias().float()
            return whole if bias is None else whole + bias.float()
        if self.bias is not None and "scales" in parts and "by_input" not in parts:
            scales = parts["scales"].float().flatten()
            if tuple(scales.shape) != self.bias:
                raise self._misfit()
            return (scales - 1) * self.base_bias().float()
        return bias

    def _alpha(self, kind: str, parts: Mapping[str, Tensor], options: PeftOptions) -> float | None:
        """The layer's alpha, or else the file's; None for adapters without a rank."""
        own = self._number("alpha")
        factor = next((parts[name] for name in RANKS.get(kind, ()) if name in parts), None)
        if own is not None or factor is None:
            return own
        return options.alpha(*self.layer, max(1, len(factor)) if factor.ndim else 1)

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
        if self.third is None or part not in BY_OUTPUT:
            return tensor
        if tensor.ndim == 0 or len(tensor) % 3:
            raise self._misfit(tensor.shape)
        return tensor.chunk(3)[self.third].contiguous()

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
        """Whether a DoRA's norms are those of the inputs, (1, in, ...), as in its first version."""
        return scale.ndim > 1 and scale.shape[0] == 1 != self.shape[0]

    def _check_fit(self, delta: LayerDelta) -> None:
        """Raise WeightsError for an adapter whose result has another shape than the layer."""
        if not self._multiplies_to(delta) and not self._tried_out(delta):
            raise self._misfit()
        count = (
            self.shape[0] if delta.magnitude_of_rows else self.shape[min(1, len(self.shape) - 1)]
        )
        if delta.magnitude is not None and delta.magnitude.numel() != count:
            raise self._misfit()

    def _multiplies_to(self, delta: LayerDelta) -> bool:
        """Whether this is B A of the layer's shape, which needs no trial."""
        if set(delta.parts) != {"down", "up"}:
            return False
        down, up = tuple(delta.parts["down"].shape), tuple(delta.parts["up"].shape)
        if len(down) < 2 or len(up) < 2:
            return False
        (out, *ranks), (rank, *rest) = up, down
        rows, *others = self.shape
        same = rest[0] == others[0] if others else False
        return same and out == rows and prod(ranks) == rank > 0 and prod(rest) == prod(others)

    def _tried_out(self, delta: LayerDelta) -> bool:
        """Whether the arithmetic fits, on meta tensors, which torch takes seconds to start."""
        import torch

        dry = replace(
            delta, parts={k: torch.empty_like(t, device="meta") for k, t in delta.parts.items()}
        )
        try:
            made = tuple(dry.difference(torch.empty(self.shape, device="meta")).shape)
        except (RuntimeError, LookupError, TypeError, ValueError, ZeroDivisionError):
            return False
        return made[:2] == self.shape[:2] and prod(made) == prod(self.shape)

    def _misfit(self, *shapes: Shape) -> WeightsError:
        given = shapes or [
            self.tensors.infos[key].shape for part, key in self.keys.items() if part not in NUMBERS
        ]
        family = family_of({key: info.shape for key, info in self.tensors.infos.items()})
        made = f"; it was made for {FAMILIES[family]}" if family else ""
        return WeightsError(
            f"{self.path} does not fit this model: {self.layer[1]} is {self.shape}, and the "
            f"adapter's shapes are {' and '.join(str(tuple(shape)) for shape in given)}{made}"
        )
