"""Pictures that are changed, repainted and edited, against diffusers' pipelines.

diffusers draws the latents of a picture from what the encoder says of them; here, and in the oracle of
these tests, their mean is taken, so that a seed's noise is the same with a picture as without.
"""

from collections.abc import Sequence
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from pipeline_oracle import (
    GUIDANCE,
    NEGATIVE,
    PROMPT,
    SCHEDULERS,
    SEED,
    Pair,
    numpy_2_warns,
    our_pictures,
    psnr,
)

from diffgen import Engine

pytestmark = [pytest.mark.parity, numpy_2_warns]

STEPS = 5
LEAST_DB = 60.0
SAMPLERS = ("ddim", "euler", "euler_a", "heun", "dpmpp_2m", "unipc")
SIZE = 32
FAMILIES = pytest.mark.parametrize("family", ["sd1", "sdxl"])

CHANGE = {
    "sd1": diffusers.StableDiffusionImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLImg2ImgPipeline,
}
REPAINT = {
    "sd1": diffusers.StableDiffusionInpaintPipeline,
    "sdxl": diffusers.StableDiffusionXLInpaintPipeline,
}
INSTRUCT = {
    "sd1": diffusers.StableDiffusionInstructPix2PixPipeline,
    "sdxl": diffusers.StableDiffusionXLInstructPix2PixPipeline,
}


@pytest.fixture
def pair(family: str, request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(f"{family}_pair")
    return found


@pytest.fixture(autouse=True)
def _mean_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of smooth colours."""
    path = tmp_path_factory.mktemp("pictures") / "init.png"
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    small.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def mask(init: Path) -> Path:
    """White in a corner, along the borders of latents, which are 4 pixels wide here."""
    path = init.with_name("mask.png")
    image = Image.new("L", (SIZE, SIZE), 0)
    image.paste(255, (12, 8, SIZE, SIZE))
    image.save(path)
    return path


def theirs(kind: type, pair: Pair, sampler: str, **call: object) -> np.ndarray:
    parts = dict(pair.pipeline.components)
    parts["scheduler"] = SCHEDULERS[sampler].make(pair.pipeline.scheduler.config)
    if "XL" not in kind.__name__:
        parts |= {"requires_safety_checker": False}
    if "InstructPix2Pix" in kind.__name__:
        parts.pop("image_encoder", None)
        parts.pop("feature_extractor", None) if "XL" in kind.__name__ else None
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    settings = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "guidance_scale": GUIDANCE,
        "num_inference_steps": STEPS,
        "generator": [torch.Generator().manual_seed(SEED)],
        **call,
    }
    return np.asarray(pipeline(**settings).images[0])


def ours(pair: Pair, sampler: str, **changes: object) -> np.ndarray:
    (picture,) = our_pictures(pair.engine, sampler=sampler, steps=STEPS, **changes)
    return picture


@FAMILIES
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_changing_a_picture(
    pair: Pair, family: str, sampler: str, strength: float, init: Path
) -> None:
    image = Image.open(init, formats=["PNG"])
    expected = theirs(CHANGE[family], pair, sampler, image=image, strength=strength)
    actual = ours(pair, sampler, init=str(init), strength=strength)
    assert psnr(actual, expected) >= LEAST_DB


@FAMILIES
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_repainting_a_part(
    pair: Pair, family: str, sampler: str, strength: float, init: Path, mask: Path
) -> None:
    """Inside the mask; outside it, diffusers gives what the decoder makes of the picture."""
    expected = repainted_by_diffusers(pair, family, sampler, strength, init, mask)
    actual = ours(pair, sampler, init=str(init), mask=str(mask), strength=strength)
    inside = np.asarray(Image.open(mask, formats=["PNG"])) == 255
    assert psnr(actual[inside], expected[inside]) >= LEAST_DB
    original = np.asarray(Image.open(init, formats=["PNG"]))
    assert np.array_equal(actual[~inside], original[~inside])


@FAMILIES
def test_at_strength_1_diffusers_shows_noise_alone_at_first(
    pair: Pair, family: str, init: Path, mask: Path
) -> None:
    """The known difference: its first evaluation sees nothing of what is to be kept."""
    expected = repainted_by_diffusers(pair, family, "euler", 1.0, init, mask)
    actual = ours(pair, "euler", init=str(init), mask=str(mask), strength=1.0)
    inside = np.asarray(Image.open(mask, formats=["PNG"])) == 255
    assert 15.0 < psnr(actual[inside], expected[inside]) < LEAST_DB


def repainted_by_diffusers(
    pair: Pair, family: str, sampler: str, strength: float, init: Path, mask: Path
) -> np.ndarray:
    pictures: Sequence[Image.Image] = [Image.open(p, formats=["PNG"]) for p in (init, mask)]
    return theirs(
        REPAINT[family],
        pair,
        sampler,
        image=pictures[0],
        mask_image=pictures[1],
        strength=strength,
        height=SIZE,
        width=SIZE,
    )


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def nine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model whose U-Net reads a mask and the picture around it."""
    return _widened(request, tmp_path_factory, 9)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def eight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A model whose U-Net reads the picture to be edited."""
    return _widened(request, tmp_path_factory, 8)


def _widened(
    request: pytest.FixtureRequest, folders: pytest.TempPathFactory, channels: int
) -> Pair:
    base: Pair = request.getfixturevalue(f"{request.param}_pair")
    parts = dict(base.pipeline.components)
    old = parts["unet"]
    torch.manual_seed(channels)
    unet = type(old).from_config(old.config, in_channels=channels).eval()
    state = old.state_dict()
    more = 0.3 * torch.randn_like(unet.conv_in.weight)
    more[:, :4] = state["conv_in.weight"]
    unet.load_state_dict(state | {"conv_in.weight": more})
    parts["unet"] = unet
    extra = {} if request.param == "sdxl" else {"requires_safety_checker": False}
    pipeline = type(base.pipeline)(**parts, **extra)
    folder = folders.mktemp("models") / f"{request.param}-{channels}"
    pipeline.save_pretrained(folder)
    return Pair(pipeline, Engine.load(folder, device="cpu", dtype="fp32"))


def family_of(pair: Pair) -> str:
    return "sdxl" if "XL" in type(pair.pipeline).__name__ else "sd1"


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_a_model_for_masks(
    nine: Pair, sampler: str, strength: float, init: Path, mask: Path
) -> None:
    """Also at strength 1: nothing but noise to begin with, on both sides."""
    expected = repainted_by_diffusers(nine, family_of(nine), sampler, strength, init, mask)
    actual = ours(nine, sampler, init=str(init), mask=str(mask), strength=strength)
    inside = np.asarray(Image.open(mask, formats=["PNG"])) == 255
    assert psnr(actual[inside], expected[inside]) >= LEAST_DB


def test_text_alone_on_a_model_for_masks_draws_everything(nine: Pair) -> None:
    """As with a white mask over a grey picture."""
    grey = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    white = Image.new("L", (SIZE, SIZE), 255)
    kind = REPAINT[family_of(nine)]
    sizes = {"height": SIZE, "width": SIZE, "strength": 1.0}
    expected = theirs(kind, nine, "euler", image=grey, mask_image=white, **sizes)
    assert psnr(ours(nine, "euler", width=SIZE, height=SIZE), expected) >= LEAST_DB


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("image_guidance", [1.0, 1.7])
def test_editing_by_instructions(
    eight: Pair, sampler: str, image_guidance: float, init: Path
) -> None:
    image = Image.open(init, formats=["PNG"])
    call = {"image": image, "image_guidance_scale": image_guidance}
    if family_of(eight) == "sdxl":
        call |= {"height": SIZE, "width": SIZE}
    expected = theirs(INSTRUCT[family_of(eight)], eight, sampler, **call)
    actual = ours(eight, sampler, init=str(init), image_guidance=image_guidance)
    assert psnr(actual, expected) >= LEAST_DB


@pytest.fixture(scope="module")
def refiner(sdxl_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Another model of the same latents."""
    parts = dict(sdxl_pair.pipeline.components)
    torch.manual_seed(12)
    unet = type(parts["unet"]).from_config(parts["unet"].config).eval()
    unet.load_state_dict(
        {
            name: tensor + tensor.std(correction=0) * torch.randn_like(tensor)
            for name, tensor in parts["unet"].state_dict().items()
        }
    )
    parts["unet"] = unet
    pipeline = type(sdxl_pair.pipeline)(**parts)
    folder = tmp_path_factory.mktemp("models") / "refiner"
    pipeline.save_pretrained(folder)
    return Pair(pipeline, Engine.load(folder, device="cpu", dtype="fp32"))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_a_refiner_ends_the_run(sdxl_pair: Pair, refiner: Pair, sampler: str) -> None:
    """Samplers without noise on the way, which diffusers' refiner begins anew; of Heun's steps it
    takes halves where the models meet.
    """
    base = theirs(
        diffusers.StableDiffusionXLPipeline,
        sdxl_pair,
        sampler,
        denoising_end=0.6,
        output_type="latent",
        height=SIZE,
        width=SIZE,
    )
    expected = theirs(
        CHANGE["sdxl"],
        refiner,
        sampler,
        image=torch.from_numpy(base)[None],
        denoising_start=0.6,
    )
    folder = str(refiner.engine.model.checkpoint.source)
    actual = ours(sdxl_pair, sampler, refiner=folder, refiner_start=0.6, width=SIZE, height=SIZE)
    alone = ours(sdxl_pair, sampler, width=SIZE, height=SIZE)
    assert psnr(actual, expected) >= LEAST_DB
    assert psnr(alone, expected) < 40.0
