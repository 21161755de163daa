"""Writing what a run made: model folders, swapped in whole, and grids of pictures."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from diffgen.errors import OutputError
from diffgen.jsonfile import JsonObject
from diffgen.train.layout import write_json
from diffgen.types import Component
from diffgen.weights.files import save_tensors
from diffgen.weights.folder import STEMS

VOCABULARY = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file, whole or not at all. Raises OutputError."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, new)
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {error.strerror}; the finished file is {source}"
        ) from error


def copy_configs(base: Path, folder: Path) -> None:
    """The JSON and vocabulary files of a model folder, without its weights."""
    for source in [*base.glob("*.json"), *base.glob("*/*.json"), *base.glob("*/*.txt")]:
        if ".safetensors.index" not in source.name and ".bin.index" not in source.name:
            place = folder / source.relative_to(base)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)


def copy_vocabulary(source: Path, folder: Path, *, max_tokens: int) -> None:
    """A tokenizer's files, for a text encoder that reads `max_tokens`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in VOCABULARY:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    file = folder / "tokenizer_config.json"
    options = JsonObject.read(file).data if file.exists() else {"tokenizer_class": "CLIPTokenizer"}
    write_json(file, {**options, "model_max_length": max_tokens})


def save_component(
    folder: Path, component: Component, module: nn.Module, dtype: torch.dtype
) -> None:
    """Write the weights of one network as one safetensors file."""
    place = folder / component
    place.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().to("cpu", dtype) for name, t in module.state_dict().items()}
    # Shared and channels-last memory cannot be written as it is.
    state = {name: t.clone(memory_format=torch.contiguous_format) for name, t in state.items()}
    save_tensors(state, place / f"{STEMS[component]}.safetensors", {})


def save_grid(images: Sequence[Image.Image], path: Path, columns: int | None = None) -> None:
    """Pictures of one size, row by row, in one PNG."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    rows = math.ceil(len(images) / columns)
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        grid.paste(image, (column * width, row * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)
