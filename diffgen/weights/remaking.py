"""The tensors of a model as they will be written, and model folders of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.models.shapes import expected_shapes
from diffgen.types import TEXT_ENCODERS, Component, LoraRef
from diffgen.weights.casting import Format, cast, format_of
from diffgen.weights.checkpoint import CLIP_TOKENIZER, Checkpoint, check_fit
from diffgen.weights.diffusers.copying import copy_configs, copy_vocabulary
from diffgen.weights.diffusers.folder import STEMS, folder_name
from diffgen.weights.diffusers.layout import write_json, write_model_configs
from diffgen.weights.files import LazyTensors
from diffgen.weights.ldm.averages import EMA, averaged_name
from diffgen.weights.ldm.single_file import read_any
from diffgen.weights.writing import Part, Step, write_parts

if TYPE_CHECKING:
    from torch import Tensor

    from diffgen.models.deltas import Delta
    from diffgen.weights.adapters.files import Deltas

Components: TypeAlias = Mapping[Component, Mapping[str, Part]]
Changes: TypeAlias = "Mapping[str, Sequence[tuple[Delta, float]]]"  # by layer of one component

END: Final = 49407  # ids of CLIP's vocabulary
PADS: Final = {"!": 0}
START_TEXT: Final = "<|startoftext|>"
END_TEXT: Final = "<|endoftext|>"


def components_of(
    checkpoint: Checkpoint, loras: Sequence[LoraRef], dtype: Format | None
) -> Components:
    """All components' tensors under canonical names, LoRAs merged in float32, rounded once.

    Raises WeightsError for tensors that are missing or do not fit, and for LoRAs as `read_lora`
    does.
    """
    from diffgen.weights.adapters.files import read_lora

    deltas = [(lora, read_lora(lora.path, checkpoint, partial=lora.partial)) for lora in loras]
    found: dict[Component, dict[str, Part]] = {}
    for component, tensors in checkpoint.tensors.items():
        expected = expected_shapes(checkpoint.config, component)
        check_fit(checkpoint.source / component, tensors.infos, expected)
        changes = _changes(component, deltas, checkpoint.config.unet.blocks)
        found[component] = {
            name: _part(tensors, name, changes, dtype, in_8_bits=component == "unet")
            for name in expected
        }
    return found


def _part(
    tensors: LazyTensors, name: str, changes: Changes, dtype: Format | None, *, in_8_bits: bool
) -> Part:
    info = tensors.infos[name]
    form = format_of(info, dtype, in_8_bits=in_8_bits)

    def make() -> Tensor:
        changed = _changed(tensors[name], name, changes)
        return cast(changed, form, name=f"{info.file}: {name}")

    return Part(info.shape, form, make)


def _changes(
    component: Component, loras: Sequence[tuple[LoraRef, Deltas]], unet: Sequence[int]
) -> Changes:
    found: dict[str, list[tuple[Delta, float]]] = {}
    for lora, deltas in loras:
        for layer, delta in deltas.get(component, {}).items():
            strength = lora.strength(component, layer, unet)
            found.setdefault(layer, []).append((delta, strength))
    return found


def _changed(tensor: Tensor, name: str, changes: Changes) -> Tensor:
    """A weight or a bias with its LoRAs added in float32."""
    layer, _, kind = name.rpartition(".")
    new = tensor
    for delta, strength in changes.get(layer, ()):
        if kind == "weight":
            new = new.float() + strength * delta.change(tensor)
        elif delta.bias is not None:
            new = new.float() + strength * delta.bias.float()
    return new


def averaged(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with the averaged weights in its file as the U-Net's own.

    Raises UsageError if there are none.
    """
    found = checkpoint.source.is_file() and {
        key: info for key, info in read_any(checkpoint.source)[0].items() if key.startswith(EMA)
    }
    if not found:
        raise UsageError(f"{checkpoint.source} has no averaged weights to use ({EMA}*)")
    unet = checkpoint.tensors["unet"].infos
    infos = {}
    for name, info in unet.items():
        average = info if info.key in found else found.get(averaged_name(info.key))
        if average is None:
            raise UsageError(f"{checkpoint.source} has averages, but none of {info.key}")
        infos[name] = replace(average, shape=info.shape, op=info.op)
    tensors = {**checkpoint.tensors, "unet": LazyTensors(infos)}
    return replace(checkpoint, tensors=tensors)


def write_folder(folder: Path, checkpoint: Checkpoint, made: Components, step: Step) -> None:
    """Write a folder in diffusers layout. Raises ConfigError for a model that it cannot hold."""
    if checkpoint.source.is_file() and not checkpoint.config.schedule.on_betas:
        raise UnsupportedCheckpoint(
            f"{checkpoint.source} has other noise than that of DDPM, for which no folder is "
            "written; name a .safetensors file"
        )
    if checkpoint.source.is_dir():
        copy_configs(checkpoint.source, folder, checkpoint.config)
    else:
        _write_configs(folder, checkpoint)
    for component, parts in made.items():
        subfolder = folder / folder_name(component, is_refiner=checkpoint.config.is_refiner)
        subfolder.mkdir(exist_ok=True)
        write_parts(
            subfolder / f"{STEMS[component]}.safetensors", parts, {"format": "pt"}, step=step
        )


def _write_configs(folder: Path, checkpoint: Checkpoint) -> None:
    """Write JSON files and vocabularies for a model from one file."""
    config = checkpoint.config
    pads = [text.pad or END_TEXT for text in config.text]
    ids = [(END, PADS.get(pad, END)) for pad in pads]
    unpadded = tuple(replace(text, pad=None) for text in config.text)  # taken from the tokenizers
    write_model_configs(folder, replace(config, text=unpadded), ids)
    known = zip(TEXT_ENCODERS, config.text, checkpoint.tokenizers, pads, strict=False)
    for name, text, vocabulary, pad in known:
        tokenizer = name.replace("text_encoder", "tokenizer")
        subfolder = folder / folder_name(tokenizer, is_refiner=config.is_refiner)
        copy_vocabulary(vocabulary, subfolder, max_tokens=text.max_tokens)
        if vocabulary != CLIP_TOKENIZER:
            continue  # a base's copy is complete
        special = {"bos_token": START_TEXT, "eos_token": END_TEXT, "unk_token": END_TEXT}
        options = {"tokenizer_class": "CLIPTokenizer", "model_max_length": text.max_tokens}
        write_json(subfolder / "special_tokens_map.json", {**special, "pad_token": pad})
        write_json(subfolder / "tokenizer_config.json", {**options, **special, "pad_token": pad})
