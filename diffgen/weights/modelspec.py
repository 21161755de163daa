"""Metadata for written files: ModelSpec and the keys that ComfyUI and A1111 read.

https://github.com/Stability-AI/ModelSpec
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from diffgen.models.config import ModelConfig
from diffgen.types import LoraRef, Prediction
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.ldm.single_file import read_any
from diffgen.weights.ldm.writing import file_family

VERSION: Final = "1.0.0"
IMPLEMENTATION: Final = "https://github.com/Stability-AI/generative-models"
PREDICTIONS: Final[dict[Prediction, str]] = {
    "eps": "epsilon",
    "v": "v",
    "sample": "sample",
    "flow": "flow",
    "edm": "edm",
    "edm_v": "edm_v",
}
# Hash and thumbnail of the source file, not of the written one.
NOT_TAKEN_OVER: Final = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "format")


def modelspec(checkpoint: Checkpoint, name: str, loras: Sequence[LoraRef]) -> dict[str, str]:
    """The metadata of a single file made of a model, added to those of its source."""
    config, source = checkpoint.config, checkpoint.source
    _, old = read_any(source) if source.is_file() else ({}, {})
    kept = {key: value for key, value in old.items() if key not in NOT_TAKEN_OVER}
    size = config.native_size
    found = {
        **kept,
        "format": "pt",
        "modelspec.sai_model_spec": VERSION,
        "modelspec.architecture": architecture(config),
        "modelspec.implementation": IMPLEMENTATION,
        "modelspec.title": kept.get("modelspec.title") or name,
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": PREDICTIONS[config.schedule.prediction],
    }
    if config.schedule.zero_snr:
        found["ss_zero_terminal_snr"] = "true"
    if config.schedule.prediction == "flow":
        found["ss_discrete_flow_shift"] = repr(config.schedule.shift)
    if loras:
        merged = [f"{lora.path.stem} ({lora.settings})" for lora in loras]
        found["modelspec.merged_from"] = ", ".join([name, *merged])
    return found


def architecture(config: ModelConfig) -> str:
    """The specification's name for a family."""
    family = file_family(config)
    if family == "sd2":
        v = config.schedule.prediction == "v"
        return f"stable-diffusion-v2-{'768-v' if v else '512'}"
    if family == "sdxl":
        return f"stable-diffusion-xl-v1-{'refiner' if config.is_refiner else 'base'}"
    return "stable-diffusion-v1"
