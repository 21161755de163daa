"""diffgen.weights.tiny and models.tiny: files of tiny decoders, and diffusers' pixels from them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

from diffgen import Engine, GenerateRequest
from diffgen.engine.model import Model
from diffgen.errors import UnsupportedCheckpoint, UsageError, WeightsError
from diffgen.models.config import ModelConfig
from diffgen.models.tiny import TinyConfig, TinyDecoder
from diffgen.settings.model import Source
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.tiny import load_decoder

if TYPE_CHECKING:
    from tiny_models import TinyModel

CPU = torch.device("cpu")


@pytest.fixture
def config(sd1: "TinyModel") -> ModelConfig:
    return Checkpoint.open(sd1.folder).config


def oracle(levels: int, latents: int = 4, width: int = 8) -> AutoencoderTiny:
    """TAESD in small, random; 2^(levels - 1) pixels of a latent."""
    torch.manual_seed(7)
    blocks = (3, *[2] * (levels - 2), 1)
    made = AutoencoderTiny(
        latent_channels=latents,
        encoder_block_out_channels=(width,) * levels,
        decoder_block_out_channels=(width,) * levels,
        num_encoder_blocks=blocks[::-1],
        num_decoder_blocks=blocks,
    )
    return made.requires_grad_(False).eval()


def levels_of(config: ModelConfig) -> int:
    return config.factor.bit_length()


def of_diffusers(tiny: AutoencoderTiny, folder: Path) -> Path:
    tiny.save_pretrained(folder)
    return folder


def flat(tiny: AutoencoderTiny, folder: Path, prefix: str = "") -> Path:
    """As TAESD's own files: one list, whose first module has no weights."""
    folder.mkdir(exist_ok=True)
    tensors = {
        f"{prefix}{int(key.split('.')[1]) + 1}.{key.split('.', 2)[2]}": tensor
        for key, tensor in tiny.decoder.state_dict().items()
    }
    save_file(tensors, folder / "taesd_decoder.safetensors")
    return folder / "taesd_decoder.safetensors"


@pytest.mark.parametrize("form", ["folder", "file", "flat", "decoder.", "taesd_decoder."])
def test_diffusers_decodes_the_same(form: str, config: ModelConfig, tmp_path: Path) -> None:
    tiny = oracle(levels_of(config))
    path = of_diffusers(tiny, tmp_path / "tiny")
    if form == "file":
        path = path / "diffusion_pytorch_model.safetensors"
    elif form != "folder":
        path = flat(tiny, tmp_path, "" if form == "flat" else form)
    decoder = load_decoder(path, config, CPU, torch.float32)
    latents = torch.randn(2, 4, 6, 5) * 4
    actual, expected = decoder.decode(latents), tiny.decode(latents).sample
    assert (actual - expected).norm() <= 1e-6 * expected.norm()


def test_the_true_architecture() -> None:
    """That of the key list of TAESD: 64 channels, 3, 3, 3 and 1 blocks."""
    expected = AutoencoderTiny().decoder.state_dict()
    assert {k: v.shape for k, v in TinyDecoder(TinyConfig()).state_dict().items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }


def test_pictures_by_it(sd1: "TinyModel", config: ModelConfig, tmp_path: Path) -> None:
    tiny = oracle(levels_of(config))
    model = Model.open(
        Source(model=str(sd1.folder), decoder=str(of_diffusers(tiny, tmp_path / "tiny")))
    )
    engine = Engine.load(model, device="cpu", dtype="fp32")
    request = GenerateRequest(prompts=["a barn"], seed=1, steps=2)
    (made,) = engine.generate(request)
    plan = engine.plan(request)
    latents = engine.sample(plan, [1], engine.guides(plan, ["a barn"]))
    pixels = tiny.decode(latents).sample[0].clamp(-1, 1).permute(1, 2, 0)
    difference = np.asarray(made.image, dtype=float) - (pixels.numpy() + 1) * 127.5
    assert abs(difference).max() <= 1.0
    assert made.record["decoder"] == str(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": 32}, "decodes latents of 32 channels, and this model's have 4"),
        ({"levels": 5}, r"makes 16 pixels of a latent, and this model's autoencoder \d"),
    ],
)
def test_for_other_latents(
    changes: dict[str, int], message: str, config: ModelConfig, tmp_path: Path
) -> None:
    file = flat(oracle(**({"levels": levels_of(config)} | changes)), tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match=message) as caught:
        load_decoder(file, config, CPU, torch.float32)
    assert str(file) in str(caught.value)


def test_damaged_and_foreign_files(config: ModelConfig, tmp_path: Path) -> None:
    file = flat(oracle(levels_of(config)), tmp_path)
    tensors = load_file(file)
    save_file({key: t for key, t in tensors.items() if key != "3.conv.2.weight"}, file)
    with pytest.raises(
        UnsupportedCheckpoint, match=r"TAESD's kind: layers\.2\.conv\.2\.weight is miss"
    ):
        load_decoder(file, config, CPU, torch.float32)
    save_file({"a.weight": torch.ones(2)}, file)
    with pytest.raises(UnsupportedCheckpoint, match="is no tiny decoder"):
        load_decoder(file, config, CPU, torch.float32)
    save_file(tensors | {"1.bias": tensors["1.bias"] / 0}, file)
    with pytest.raises(WeightsError, match=r"layers\.0\.bias has numbers that are not finite"):
        load_decoder(file, config, CPU, torch.float32)
    with pytest.raises(UnsupportedCheckpoint, match="this model has no latents"):
        load_decoder(flat(oracle(3), tmp_path), replace(config, vae=None), CPU, torch.float32)


def test_the_usual_one_is_fetched_on_request(sd1: "TinyModel") -> None:
    with pytest.raises(UsageError, match=re.escape("diffgen pull taesd")):
        Model.open(Source(model=str(sd1.folder), decoder="tiny"))
