"""The scale of PEFT's adapters, which their tensors do not contain.

diffusers writes PEFT's configs as JSON into a file's metadata, as `unet.r`, `unet.lora_alpha` and
so on; PEFT itself writes `adapter_config.json` beside `adapter_model.safetensors`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.errors import UnsupportedCheckpoint, WeightsError, shown
from diffgen.jsonfile import JsonObject, parse_json
from diffgen.types import Component

KEY = "lora_adapter_metadata"
# Ways to begin an adapter that take its first product from the model's weights.
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")
OF_PEFT = ("adapter_model.safetensors", "adapter_config.json")


@dataclass(frozen=True, slots=True)
class PeftOptions:
    """PEFT's options by name, prefixed by the component and a dot."""

    where: str
    data: Mapping[str, Any]

    def alpha(self, component: Component, layer: str, rank: int) -> float:
        """The alpha for which alpha / rank is the layer's scale; by default the rank.

        Patterns of names set a layer's own alpha and rank. With rank-stabilised adapters
        (arXiv:2312.03732) the scale is alpha / sqrt(rank). Raises WeightsError.
        """
        given = self.get(component, "lora_alpha")
        if given is None:  # LoHa's and LoKr's name of it
            given = self.get(component, "alpha")
        patterns = self.get(component, "alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise self._wrong("alpha_pattern", patterns)
        alpha = next((value for key, value in patterns.items() if _matches(key, layer)), given)
        if alpha is None:
            return float(rank)
        if (
            isinstance(alpha, bool)
            or not isinstance(alpha, int | float)
            or not math.isfinite(alpha)
        ):
            raise self._wrong("lora_alpha", alpha)
        stabilised = self.get(component, "use_rslora")
        return alpha * math.sqrt(rank) if stabilised is True else float(alpha)

    def flag(self, component: Component, name: str, *, default: bool = False) -> bool:
        """An option that is on or off."""
        value = self.get(component, name)
        return default if value is None else value is True

    def number(self, component: Component, name: str, default: float) -> float:
        """An option that is a number. Raises WeightsError for another value."""
        value = self.get(component, name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise WeightsError(f"{self.where}: {name} is {shown(value)}, which is no such number")
        return value

    def refuse_changed_base(self) -> None:
        """Raise UnsupportedCheckpoint for adapters that belong to changed weights of the model."""
        for key, value in self.data.items():
            made = str(value).partition("_")[0]
            if key.endswith("init_lora_weights") and made in CHANGE_THE_BASE:
                raise UnsupportedCheckpoint(
                    f"{self.where}: {shown(value)} adapters belong to a model whose weights PEFT "
                    "changed at the start; save it again with path_initial_model_for_weight_conversion"
                )

    def get(self, component: Component, name: str) -> Any:
        """An option as it stands; None where it is not said."""
        return self.data.get(f"{component}.{name}", self.data.get(name))

    def _wrong(self, name: str, value: object) -> WeightsError:
        return WeightsError(f"{self.where}: {name} is {shown(value)}, which is no scale")


def _matches(pattern: str, layer: str) -> bool:
    """Match as PEFT does: the pattern is the end of a layer's name after a dot, or all of it."""
    try:
        return re.match(rf"(.*\.)?({pattern})$", layer) is not None
    except re.error:
        return False


def read_peft_options(path: Path, metadata: Mapping[str, str]) -> PeftOptions:
    """Read the scales from a file's metadata or the JSON beside it. Raises WeightsError."""
    beside = path.with_name(OF_PEFT[1])
    alone = path.name == OF_PEFT[0] or [*path.parent.glob("*.safetensors")] == [path]
    if KEY not in metadata and alone and beside.is_file():
        return PeftOptions(str(beside), JsonObject.read(beside).data)
    where = f"{path}: {KEY}"
    options = parse_json(metadata.get(KEY, "{}"), where)
    if not isinstance(options, dict):
        raise WeightsError(f"{where} should hold a JSON object")
    return PeftOptions(where, options)
