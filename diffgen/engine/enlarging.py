"""Enlarge pictures ahead of a second pass."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from PIL import Image
from PIL.Image import Resampling

from diffgen.engine.images import to_images, to_pixels
from diffgen.errors import WeightsError, one_line
from diffgen.types import Size


def enlarged(image: Image.Image, size: Size, upscaler: str) -> Image.Image:
    """A picture at another size, by lanczos or by the file of an upscaling model.

    Raises WeightsError for a file that is no upscaling model.
    """
    if upscaler != "lanczos":
        image = _by_model(image, Path(upscaler).expanduser())
    return image if image.size == size else image.resize(size, Resampling.LANCZOS)


def _by_model(image: Image.Image, path: Path) -> Image.Image:
    try:
        spandrel = import_module("spandrel")  # an optional package
        model = spandrel.ModelLoader(device="cpu").load_from_file(path)
    except Exception as error:
        raise WeightsError(f"{path} is no upscaling model: {one_line(str(error))}") from error
    with torch.inference_mode():
        # Such models take and give colours from 0 to 1.
        large = model(to_pixels(image, channels=3).add(1.0).div(2.0))
    return to_images(large * 2.0 - 1.0)[0]
