"""Explain numbers that are not finite: a damaged file, or unsuitable settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diffgen.device import DTYPES
from diffgen.errors import DiffgenError, WeightsError
from diffgen.types import Component
from diffgen.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from diffgen.engine.adapters import Adapters

USED: dict[str, tuple[Component, ...]] = {
    "sampling": ("text_encoder", "text_encoder_2", "unet"),
    "decoding": ("vae",),
    "encoding": ("vae",),
}


def not_finite(
    stage: str, dtype: torch.dtype, checkpoint: Checkpoint, adapters: Adapters | None = None
) -> DiffgenError:
    """The error for a stage of USED that ran in `dtype`, with advice.

    Reads the weights of the stage again, so that a damaged tensor is named with its file.
    """
    for component in USED[stage]:
        if broken := checkpoint.find_not_finite(component):
            return WeightsError(
                f"{broken.file}: the tensor {broken.key} has numbers that are not finite, and so "
                f"has all that {stage} gave; download the file again, or take another model"
            )
    if adapters and (found := adapters.find_not_finite()):
        path, layer = found
        return WeightsError(
            f"{path} makes {layer} numbers that are not finite, and so all that {stage} gave; "
            "lower its weight, or leave it out"
        )
    name = next(name for name, each in DTYPES.items() if each == dtype)
    if name != "fp32":
        advice = "try --dtype fp32"
    elif stage == "sampling":
        advice = "try another sampler, more steps or less guidance"
    else:
        advice = "try another seed"
    if adapters and adapters.any:
        advice += ", or lower weights of the LoRAs"
    return DiffgenError(f"{stage} in {name} gave numbers that are not finite; {advice}")
