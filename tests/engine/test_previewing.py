"""Latents as small pictures: like what the autoencoder makes of them, and without a trace."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops, ImageStat
from safetensors.torch import save_file
from tiny_models import TinyModel
from torch import Tensor

from diffgen import Engine, GenerateRequest
from diffgen.engine.images import to_pixels
from diffgen.engine.model import Model
from diffgen.engine.previewing import Previewer
from diffgen.models.tiny import TinyConfig, TinyDecoder
from diffgen.settings.model import Source
from diffgen.types import StepInfo


@pytest.fixture(scope="module")
def storybook() -> Engine:
    return Engine.load(device="cpu", dtype="fp32")


def differs(one: Image.Image, other: Image.Image) -> float:
    means = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(means) / len(means)


def test_each_latent_is_about_the_colour_of_its_pixels(storybook: Engine) -> None:
    steps: list[Tensor] = []
    request = GenerateRequest(prompts=["a red barn", "a blue boat"], seed=3, batch_size=2, steps=6)
    made = list(storybook.generate(request, on_step=lambda info: steps.append(info.denoised)))
    previews = Previewer(storybook).images(steps[-1])
    small = [
        picture.image.resize(preview.size, Image.Resampling.BOX)
        for picture, preview in zip(made, previews, strict=True)
    ]
    for i, preview in enumerate(previews):
        assert preview.size == (16, 16)
        assert differs(preview, small[i]) < 26  # 15 and 19 of 255 were measured
        assert differs(preview, small[1 - i]) > 40


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("more", [{}, {"hires": "2x", "hires_strength": 0.5}])
def test_looking_changes_no_picture(sd1: TinyModel, dtype: Any, more: dict[str, Any]) -> None:
    request = GenerateRequest(prompts=["a barn"], seed=3, steps=3, width=64, height=64, **more)

    def drawn(look: bool) -> bytes:
        engine = Engine.load(sd1.folder, device="cpu", dtype=dtype)
        previewer, seen = Previewer(engine), []

        def on_step(info: StepInfo) -> None:
            seen.extend(previewer.images(info.denoised) if look else [])

        (made,) = engine.generate(request, on_step=on_step)
        assert len(seen) == look * (3 + bool(more))
        assert engine.precision.vae == (torch.float32 if dtype == "fp32" else torch.bfloat16)
        return made.image.tobytes()

    assert drawn(look=True) == drawn(look=False)


def test_by_the_tiny_decoder_where_there_is_one(sd1: TinyModel, tmp_path: Path) -> None:
    config = Model.open(sd1.folder).checkpoint.config
    assert config.vae
    torch.manual_seed(0)
    levels = config.factor.bit_length()
    tiny = TinyDecoder(TinyConfig(latent_channels=4, width=16, blocks=(1,) * levels))
    tensors = {f"decoder.{key}": value for key, value in tiny.state_dict().items()}
    save_file(tensors, tmp_path / "tiny.safetensors")
    model = Model.open(Source(model=str(sd1.folder), decoder=str(tmp_path / "tiny.safetensors")))
    engine = Engine.load(model, device="cpu", dtype="fp32")
    latents = torch.randn(2, 4, 6, 5)
    drawn, expected = Previewer(engine).images(latents), engine.decode(latents)
    for one, other in zip(drawn, expected, strict=True):
        assert one.size == other.size
        assert differs(one, other) < 0.01  # that one's weights are packed


def test_a_model_of_pixels_is_shown_as_it_is() -> None:
    pixels = torch.linspace(-1, 1, 3 * 4 * 5).reshape(1, 3, 4, 5)
    engine: Any = SimpleNamespace(config=SimpleNamespace(vae=None), device=None, model=None)
    (drawn,) = Previewer(engine).images(pixels)
    assert to_pixels(drawn, channels=3).sub(pixels).abs().max() < 0.5 / 127
