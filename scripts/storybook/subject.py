"""The model that is judged: its pictures of prompts, and what its autoencoder loses."""

from collections.abc import Sequence
from itertools import islice
from statistics import mean

import torch
from PIL import Image

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
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
    for pixels, examples in islice(stream.batches(64), batches):
        made = engine.decode(engine.encode_image(torch.from_numpy(pixels)))
        originals = [Image.fromarray(example.picture) for example in examples]
        found += [psnr(*pair) for pair in zip(originals, made, strict=True)]
    return mean(found)
