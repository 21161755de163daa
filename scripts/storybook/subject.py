"""The model that is judged: its pictures of prompts, and what its autoencoder loses."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
from diffgen.engine.model import Model
from diffgen.weights.finding import resolve
from scripts.storybook.stream import SceneStream


def load(model: str) -> Engine:
    """A model by name or path, sampled as `weights.toml` says of it, or else of storybook."""
    opened = Model.open(model)
    return Engine.load(replace(opened, entry=opened.entry or resolve("storybook").entry))


def generate(
    engine: Engine, prompts: Sequence[str], seed: int, *, count: int = 1
) -> list[Image.Image]:
    """`count` pictures of each prompt in turn, by the model's own sampler and steps."""
    request = GenerateRequest(prompts=list(prompts), seed=seed, count=count, batch_size=8)
    return [made.image for made in engine.generate(request)]


def autoencoded(engine: Engine, pixels: NDArray[np.float32]) -> list[Image.Image]:
    """Scenes (B, 3, H, W) in -1 to 1 as the model's autoencoder gives them back."""
    return engine.decode(engine.encode_image(torch.from_numpy(pixels)))


def reconstruction_psnr(
    engine: Engine, stream: SceneStream, *, batches: int = 4, size: int = 64
) -> float:
    """Mean PSNR in dB of painted scenes after the model's autoencoder, `size` scenes a batch."""
    found: list[float] = []
    for pixels, examples in islice(stream.batches(size), batches):
        made = autoencoded(engine, pixels)
        originals = [Image.fromarray(example.picture) for example in examples]
        found += [psnr(*pair) for pair in zip(originals, made, strict=True)]
    return mean(found)
