"""PEFT's adapters that rotate or scale: parts of a file to those of `KINDS`, by PEFT's options."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from diffgen.weights.adapters.names import Layer
from diffgen.weights.adapters.peft import PeftOptions
from diffgen.weights.files import Shape

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("diffgen")

Parts: TypeAlias = "dict[str, Tensor]"
NEUMANN_TERMS, BOUND = 5, 6e-5  # PEFT's own where nothing is said


def unsqueezed(given: Parts) -> Parts:
    """Factors of rank 1 that were saved as vectors, as the matrices they are."""
    parts = dict(given)
    for name, dimension in (("down", 0), ("up", 1)):
        if name in parts and parts[name].ndim == 1:
            parts[name] = parts[name].unsqueeze(dimension)
    return parts


def prepared(given: Parts, layer: Layer, shape: Shape, options: PeftOptions) -> Parts:
    """The parts with rotations in place of what they were learned as.

    Raises ValueError and WeightsError.
    """
    parts = dict(given)
    if "turns" in parts:
        parts["turns"] = _rotations(parts["turns"], layer, options)
    if "butterfly" in parts:
        parts["turns"] = _butterfly(parts.pop("butterfly"))
    if "scales" in parts and _by_input(parts["scales"], layer, shape, options):
        parts["by_input"] = parts["scales"]
    return parts


def _rotations(upper: Tensor, layer: Layer, options: PeftOptions) -> Tensor:
    """(blocks, size, size) of the numbers above the diagonals (blocks, n)."""
    from diffgen.models.rotations import cayley, clipped, skew_of

    if upper.ndim != 2:
        raise ValueError("one row for each block")
    skew = skew_of(upper)
    component = layer[0]
    if options.flag(component, "coft"):
        skew = clipped(skew, options.number(component, "eps", BOUND))
    if not options.flag(component, "use_cayley_neumann", default=not options.data):
        return cayley(skew)
    return cayley(skew, int(options.number(component, "num_cayley_neumann_terms", NEUMANN_TERMS)))


def _butterfly(blocks: Tensor) -> Tensor:
    """(stages, blocks, size, size) of matrices of whose half the skew part is meant."""
    from diffgen.models.rotations import cayley

    if blocks.ndim != 4:
        raise ValueError("blocks of each stage")
    return cayley((blocks.float() - blocks.float().transpose(-1, -2)) / 2)


def _by_input(scales: Tensor, layer: Layer, shape: Shape, options: PeftOptions) -> bool:
    """Whether an IA3 scales the inputs: by the shape, else as PEFT's options have it."""
    if len(shape) < 2:
        return False
    if scales.ndim == 2 == len(shape):
        return scales.shape[0] == 1 != shape[0]
    if shape[0] != shape[1]:
        return scales.numel() == shape[1]
    modules = options.get(layer[0], "feedforward_modules")
    if isinstance(modules, str):
        return re.fullmatch(modules, layer[1]) is not None
    return isinstance(modules, list) and layer[1].endswith(tuple(map(str, modules)))


def unsaid(parts: Mapping[str, str], options: PeftOptions) -> str | None:
    """What an adapter without PEFT's options leaves open, for a warning."""
    if options.data:
        return None
    if "turns" in parts:
        return f"how its rotations were made, taken for {NEUMANN_TERMS} Neumann terms"
    if "scales" in parts:
        return "whether it scales inputs or outputs, taken for outputs where both are as many"
    peft = any(key.startswith("base_model.model.") for key in parts.values())
    return (
        "its alpha, taken for its rank"
        if peft and "down" in parts and "alpha" not in parts
        else None
    )
