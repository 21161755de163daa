"""Write the results of a run: weights and grids of pictures."""

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
from diffgen.types import Component
from diffgen.weights.diffusers.folder import STEMS
from diffgen.weights.files import save_tensors


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


def save_component(
    folder: Path, component: Component, module: nn.Module, dtype: torch.dtype
) -> None:
    """Write the weights of one network as one safetensors file."""
    subfolder = folder / component
    subfolder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().to("cpu", dtype) for name, t in module.state_dict().items()}
    # Shared and channels-last memory cannot be written as it is.
    state = {name: t.clone(memory_format=torch.contiguous_format) for name, t in state.items()}
    save_tensors(state, subfolder / f"{STEMS[component]}.safetensors", {})


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
