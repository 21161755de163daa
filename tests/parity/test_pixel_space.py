"""A model without an autoencoder: its U-Net makes the pixels themselves."""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from pipeline_oracle import GUIDANCE, NEGATIVE, PROMPT, SEED, numpy_2_warns, our_pictures, psnr
from tiny_models import TinyModel
from torch import Tensor

from diffgen import Engine

pytestmark = [pytest.mark.parity, numpy_2_warns]

STEPS = 5


@pytest.fixture(scope="module")
def pixel_model(
    sd2: TinyModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[diffusers.UNet2DConditionModel, Path]:
    """The tiny SD 2 with three channels in and out, and no autoencoder."""
    latent = sd2.pipeline.unet
    unet = type(latent).from_config(latent.config, in_channels=3, out_channels=3).eval()
    weights = latent.state_dict()
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :3]
    weights["conv_out.weight"] = weights["conv_out.weight"][:3]
    weights["conv_out.bias"] = weights["conv_out.bias"][:3]
    unet.load_state_dict(weights)
    folder = tmp_path_factory.mktemp("models") / "pixels"
    shutil.copytree(sd2.folder, folder, ignore=shutil.ignore_patterns("vae", "unet"))
    unet.save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    del index["vae"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return unet, folder


@torch.no_grad()
def loop(sd2: TinyModel, unet: diffusers.UNet2DConditionModel) -> np.ndarray:
    """Guided DDIM as a diffusers user writes it by hand."""
    pipe = sd2.pipeline
    context = torch.cat([encode(pipe, NEGATIVE), encode(pipe, PROMPT)])
    scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    x = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(SEED))
    for t in scheduler.timesteps:
        negative, positive = unet(torch.cat([x, x]), t, context).sample.chunk(2)
        guided = negative + GUIDANCE * (positive - negative)
        x = scheduler.step(guided, t, x).prev_sample
    return diffusers.image_processor.VaeImageProcessor().postprocess(x, "pil")[0]


def encode(pipe: diffusers.StableDiffusionPipeline, prompt: str) -> Tensor:
    tokens = pipe.tokenizer(prompt, padding="max_length", max_length=32, return_tensors="pt")
    return pipe.text_encoder(tokens.input_ids)[0]


def test_pixels_need_no_autoencoder(
    sd2: TinyModel, pixel_model: tuple[diffusers.UNet2DConditionModel, Path]
) -> None:
    unet, folder = pixel_model
    (actual,) = our_pictures(Engine.load(folder, device="cpu", dtype="fp32"), steps=STEPS)
    assert actual.shape == (8, 8, 3)
    assert psnr(actual, loop(sd2, unet)) >= 60.0  # 192 values: one off by one level is 71 dB
