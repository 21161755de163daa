"""The way of a picture on a device that computes nothing: what would wait for it fails there.

PyTorch's `meta` device knows shapes only. A number that Python read back, and a product of its
tensors with the CPU's, are errors on it, as they are waits or errors on a GPU.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from diffgen import Engine, GenerateRequest
from diffgen.device import Precision
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.engine.model import Model

if TYPE_CHECKING:
    from tiny_models import TinyModel

META = torch.device("meta")
ADAPTIVE = "dpm_adaptive"  # chooses its steps by an error it must know


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def engine_of(folder: Path) -> Engine:
    return Engine(Model.open(folder), META, Precision.pick("fp16", META))


@pytest.fixture(scope="module")
def engine(sd1: "TinyModel") -> Engine:
    return engine_of(sd1.folder)


def sample(engine: Engine, sampler: str, **options: object) -> torch.Tensor:
    request = GenerateRequest(prompts=["a barn"], sampler=sampler, **{"steps": 3, **options})
    plan = engine.plan(request)
    denoise = engine.denoiser(plan, engine.guides(plan, plan.request.prompts))
    shape = engine.config.latent_shape(plan.width, plan.height)
    return plan.sampling.run(denoise, [0], shape, META)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != ADAPTIVE])
def test_no_sampler_waits(engine, sampler):
    latents = sample(engine, sampler)
    assert latents.device == META
    assert latents.dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [
        {"fast": True},
        {"guidance_scale": 1.0},
        {"guidance_rescale": 0.7},
        {"guidance_interval": (0.5, 4.0)},
    ],
    ids=str,
)
def test_no_option_waits(engine, options):
    assert sample(engine, "dpmpp_2m", **options).device == META


def test_two_encoders_and_sizes_do_not_wait(sdxl: "TinyModel"):
    assert sample(engine_of(sdxl.folder), "euler").device == META


def test_decoding_does_not_wait(engine):
    latents = sample(engine, "ddim")
    pixels = engine.vae.decode(latents.to(engine.precision.vae))
    assert pixels.device == META
    assert pixels.dtype == engine.precision.vae


def test_what_waits_is_noticed(engine):
    with pytest.raises(RuntimeError, match="item"):
        sample(engine, ADAPTIVE, steps=None)
