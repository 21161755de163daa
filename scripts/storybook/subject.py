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


def generate(
    source: str, prompts: Sequence[str], seed: int, *, count: int = 1
) -> list[Image.Image]:
    """`count` pictures of each prompt in turn, by the model's own sampler and steps."""
    request = GenerateRequest(prompts=list(prompts), seed=seed, count=count, batch_size=8)
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


def save_sheet(pictures: Sequence[Image.Image], path: Path, *, columns: int = 6) -> None:
    """The pictures side by side."""
    save_grid(list(pictures), path, columns=columns)
