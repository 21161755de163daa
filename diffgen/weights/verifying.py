"""Read written files back and compare them with their source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.errors import UnsupportedCheckpoint, WeightsError, shown
from diffgen.jsonfile import JsonObject
from diffgen.models.config import ModelConfig
from diffgen.weights.checkpoint import CLIP_TOKENIZER, Checkpoint
from diffgen.weights.files import open_tensors
from diffgen.weights.writing import Part, Step

if TYPE_CHECKING:
    from torch import Tensor

    from diffgen.weights.remaking import Components

MAX_TOKENIZER = 64 << 20  # bytes
# Fields that are only recommended (a size, a sampler), or affect time and not the picture.
NOT_COMPARED = {
    "unet": ("sample_size", "upcast_attention"),
    "vae": ("force_upcast",),
    "text": ("pad", "projection"),
    "schedule": (
        *("sampler", "spacing", "steps_offset", "final_alpha_one", "clip", "unsupported"),
        "distilled_steps",
    ),
}


def check_single_file(path: Path, config: ModelConfig, made: Components, step: Step) -> None:
    """Raise UnsupportedCheckpoint for what a single file lacks, WeightsError for wrong bytes."""
    back = Checkpoint.open(path)
    differences = list(_differences(config, back.config))
    if differences:
        raise UnsupportedCheckpoint(
            f"a single file cannot hold this model: {'; '.join(differences)}; name a folder"
        )
    _compare(back, made, step)


def check_vocabularies(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedCheckpoint for a vocabulary other than CLIP's, which single files lack."""
    clip = JsonObject.read(CLIP_TOKENIZER / "vocab.json").data
    for folder, text in zip(checkpoint.tokenizers, checkpoint.config.text, strict=True):
        if folder == CLIP_TOKENIZER:
            continue
        if _vocabulary(folder) != clip:
            raise UnsupportedCheckpoint(
                f"a single file cannot hold this model: {folder} has another vocabulary than "
                "CLIP's; name a folder"
            )
        if text.vocab_size > len(clip):
            raise UnsupportedCheckpoint(
                f"a single file cannot hold this model: its text encoder knows "
                f"{text.vocab_size - len(clip)} tokens beyond CLIP's vocabulary, whose names only "
                f"{folder} has; name a folder"
            )


def _vocabulary(folder: Path) -> Mapping[str, Any]:
    file = folder / "vocab.json"
    if file.is_file():
        return JsonObject.read(file).data
    model = JsonObject.read(folder / "tokenizer.json", at_most=MAX_TOKENIZER).table("model")
    vocabulary = model.get("vocab")
    return vocabulary if isinstance(vocabulary, dict) else {}


def check_folder(folder: Path, config: ModelConfig, made: Components, step: Step) -> None:
    """The same checks for a folder."""
    back = Checkpoint.open(folder)
    differences = list(_differences(config, back.config))
    if differences:
        raise UnsupportedCheckpoint(f"a folder cannot hold this model: {'; '.join(differences)}")
    _compare(back, made, step)


def check_part(path: Path, parts: Mapping[str, Part], step: Step) -> None:
    """Raise WeightsError unless a file holds exactly these parts."""
    tensors = open_tensors([path])
    if set(tensors) != set(parts):
        raise WeightsError(f"{path} was written with other tensors than it should have")
    for name, part in parts.items():
        _check_equal(path, name, tensors[name], part.make())
        step()


def _compare(back: Checkpoint, made: Components, step: Step) -> None:
    for component, parts in made.items():
        tensors = back.tensors[component]
        for name, part in parts.items():
            _check_equal(back.source, name, tensors[name], part.make())
            step()


def _check_equal(path: Path, name: str, found: Tensor, wanted: Tensor) -> None:
    import torch

    same = found.dtype == wanted.dtype and found.shape == wanted.shape
    # As bytes: 8-bit formats cannot be compared, and zero has two signs.
    if not same or not torch.equal(_bytes(found), _bytes(wanted)):
        raise WeightsError(f"{path}: {name} does not read back as it was written; try again")


def _bytes(tensor: Tensor) -> Tensor:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _differences(wanted: ModelConfig, found: ModelConfig) -> Iterator[str]:
    for part, left_out in NOT_COMPARED.items():
        for name, one, other in _pairs(getattr(wanted, part), getattr(found, part)):
            if name not in left_out and one != other:
                yield f"its {part}.{name} {shown(one)} would be read as {shown(other)}"


def _pairs(wanted: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(wanted, tuple):
        for one, other in zip(wanted, found, strict=True):
            yield from _pairs(one, other)
    elif wanted is None or found is None:
        yield "none", wanted is None, found is None
    else:
        for spec in fields(wanted):
            yield spec.name, getattr(wanted, spec.name), getattr(found, spec.name)
