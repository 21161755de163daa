"""The model that is judged: its pictures of prompts, and what its autoencoder loses."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Final

import torch
from PIL import Image

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
from diffgen.engine.model import Model
from diffgen.weights.finding import resolve
from scripts.storybook.stream import SceneStream
from scripts.storybook.verifier import as_read

BATCH: Final = 32


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


def autoencoded(engine: Engine, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures of one size as the model's autoencoder gives them back."""
    parts = [pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH)]
    latents = [engine.encode_image(torch.from_numpy(as_read(part))) for part in parts]
    return [made for part in latents for made in engine.decode(part)]


def reconstruction_psnr(engine: Engine, stream: SceneStream, *, count: int = 256) -> float:
    """Mean PSNR in dB of so many painted scenes after the model's autoencoder."""
    originals = [Image.fromarray(stream.example(k).picture) for k in range(count)]
    return mean(psnr(*pair) for pair in zip(originals, autoencoded(engine, originals), strict=True))
