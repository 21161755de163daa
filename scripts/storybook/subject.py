"""The model that is judged: its pictures of prompts, and what its autoencoder loses."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffgen import Engine, GenerateRequest
from diffgen.train.export import save_grid
from scripts.storybook.stream import SceneStream

COLUMNS = 6  # of the sheet


def generate(source: str, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """One picture of the model for each prompt, by its own sampler and steps."""
    request = GenerateRequest(prompts=list(prompts), seed=seed, batch_size=8)
    return [made.image for made in Engine.load(source).generate(request)]


def reconstruction_psnr(source: str, stream: SceneStream, *, batches: int = 4) -> float:
    """Mean PSNR in dB of painted scenes after the model's autoencoder, 64 scenes a batch."""
    engine = Engine.load(source)
    found: list[float] = []
    for pixels, _ in islice(stream.batches(64), batches):
        original = torch.from_numpy(pixels)
        made = engine.decode(engine.encode_image(original))
        for picture, image in zip(original, made, strict=True):
            levels = (picture.permute(1, 2, 0).numpy() + 1) * 127.5
            error = float(np.square(levels - np.asarray(image, dtype=np.float64)).mean())
            found.append(10 * float(np.log10(255**2 / error)))
    return float(np.mean(found))


def save_sheet(pictures: Sequence[Image.Image], path: Path) -> None:
    """The pictures, six in a row."""
    save_grid(list(pictures), path, columns=COLUMNS)
