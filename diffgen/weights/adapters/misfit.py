"""Explain a file that does not fit: its kind, the models it is for, and how much fits."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from diffgen.errors import UnsupportedCheckpoint, WeightsError, shown, some
from diffgen.models.config import ModelConfig
from diffgen.weights.adapters.names import UNREAD, flat, split
from diffgen.weights.adapters.strangers import architecture_of
from diffgen.weights.contents import contents_of
from diffgen.weights.files import LazyTensors, Shape

FAMILIES = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "Stable Diffusion XL",
    "refiner": "the refiner of Stable Diffusion XL",
    "custom": "this model",
}
CONTEXTS = {768: "sd1", 1024: "sd2", 1280: "refiner", 2048: "sdxl"}  # width of a U-Net's text
OF_VAE = re.compile(r"(?:lora_)?(?:vae|first_stage_model|autoencoder)[._].+")
SECOND_ENCODER = re.compile(r"(?:lora_te2|te2|text_encoder_2|clip_g|lycoris_te2)[._].*")
SAID = ("ss_base_model_version", "modelspec.architecture")  # metadata: the base model
WORDS = (("xl", "sdxl"), ("v2", "sd2"), ("v1", "sd1"), ("sd1", "sd1"), ("sd2", "sd2"))
INPUTS = ("down", "w1_b")  # parts whose second dimension is the layer's number of inputs


def misfit(
    path: Path,
    tensors: LazyTensors,
    strange: Sequence[str],
    fits: int,
    config: ModelConfig,
    metadata: Mapping[str, str],
) -> WeightsError:
    """The error for a file with tensors that belong to no layer of the model."""
    kinds = {name for name, pattern in UNREAD.items() if any(map(pattern.fullmatch, tensors))}
    if kinds:
        return UnsupportedCheckpoint(
            f"{path} is {min(kinds)}, which diffgen does not read: {some(strange)}"
        )
    parts = {found[1] for key in tensors if (found := split(key))}
    contents = contents_of({key: info.shape for key, info in tensors.infos.items()})
    if not parts and contents.holds != "lora" and contents.called:
        return WeightsError(f"{path} is no LoRA but {contents.called}")
    advice = "; --lora-partial uses those that fit" if fits else ""
    if strange and all(map(OF_VAE.fullmatch, strange)):
        return UnsupportedCheckpoint(
            f"{path} changes the autoencoder, whose adapters diffgen does not read: "
            f"{some(strange)}{advice}"
        )
    if fits and all(key.endswith((".weight", ".bias")) and not split(key) for key in strange):
        return UnsupportedCheckpoint(
            f"{path} has whole weights beside its adapters (PEFT's modules_to_save), which diffgen "
            f"does not read: {some(strange)}{advice}"
        )
    if not parts:
        return WeightsError(
            f"{path} is no LoRA that is known: none of its {len(tensors)} tensors is a part of one"
            + (f", such as {some(list(tensors))}" if tensors else "")
        )
    family = "refiner" if config.conditioning == "score" else config.family
    return WeightsError(
        f"{path} is a {kind_name(parts)} for {made_for(tensors, metadata)} and does not fit "
        f"{FAMILIES[family]}: {fits} of its {len(tensors)} tensors have a layer there, others do "
        f"not: {some(strange)}{advice}"
    )


def kind_name(parts: Collection[str]) -> str:
    """The common name of an adapter with these parts."""
    from diffgen.models.deltas import KINDS

    if {"magnitude", "dora_scale"} & set(parts):
        return "DoRA"
    given = frozenset(parts)
    return next((kind.label for kind in KINDS.values() if kind.complete(given)), "LoRA")


def made_for(tensors: LazyTensors, metadata: Mapping[str, str]) -> str:
    """The models that a file was made for, by the shapes of its tensors or its metadata."""
    shapes = {key: info.shape for key, info in tensors.infos.items()}
    if other := architecture_of(shapes):
        return other
    if family := family_of(shapes):
        return FAMILIES[family]
    if any(map(SECOND_ENCODER.fullmatch, tensors)):
        return FAMILIES["sdxl"]
    said = next((metadata[key] for key in SAID if metadata.get(key)), "")
    named = next((family for word, family in WORDS if word in said.lower()), None)
    if named:
        return FAMILIES[named]
    return f"what its trainer called {shown(said)}" if said else "another model"


def family_of(shapes: Mapping[str, Shape]) -> str | None:
    """The family of the U-Net whose text has the width that a file's tensors are made for."""
    found = (_family(key, shape) for key, shape in shapes.items())
    return next(filter(None, found), None)


def _family(key: str, shape: Shape) -> str | None:
    name, part = split(key) or ("", "")
    if part in INPUTS and re.search(r"attn2_to_[kv]$", flat(name)) and len(shape) > 1:
        return CONTEXTS.get(shape[1])
    return None
