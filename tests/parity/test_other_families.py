"""Files beyond Stable Diffusion 1, 2 and XL as they were first: diffusers' pictures of the same weights."""

import gguf
import pytest
import torch
from diffusers import (
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
)
from gguf.quants import dequantize, quantize
from pipeline_oracle import SEED, diffusers_pictures, numpy_2_warns, our_pictures, psnr
from safetensors.torch import save_file
from single_files import _ldm_unet, make_pipeline, single_file_tensors, write_single_file
from tiny_models import XL_UNET, random_unet

from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.settings.model import Source
from diffgen.weights.convert import Conversion, convert
from diffgen.weights.files import read_metadata

pytestmark = [pytest.mark.parity, numpy_2_warns]

LEAST_DB = 66.0
SIZE = {"width": 32, "height": 32}
UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def sdxl():
    return make_pipeline("sdxl")


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    pipeline = make_pipeline("sd1")
    file = tmp_path_factory.mktemp("base") / "sd1.safetensors"
    return pipeline, write_single_file(file, pipeline, "sd1")


def agreement(model: Model, pipeline, *, scheduler=None) -> float:
    engine = Engine.load(model, device="cpu", dtype="fp32")
    (actual,) = our_pictures(engine, steps=4, **SIZE)
    (expected,) = theirs(pipeline, scheduler=scheduler)
    return psnr(actual, expected)


def theirs(pipeline, *, scheduler=None):
    return diffusers_pictures(pipeline, scheduler=scheduler, num_inference_steps=4, **SIZE)


def test_an_edm_model_is_known_by_its_statistics(sdxl, tmp_path):
    tensors = single_file_tensors(sdxl, "sdxl")
    mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([1.0, 2.0, 0.5, 1.5])
    tensors |= {"edm_mean": mean.reshape(1, 4, 1, 1), "edm_std": std.reshape(1, 4, 1, 1)}
    save_file(tensors, tmp_path / "playground.safetensors")
    model = Model.open(tmp_path / "playground.safetensors")
    assert model.checkpoint.config.schedule.prediction == "edm"
    own = {
        name: sdxl.vae.config[name] for name in ("scaling_factor", "latents_mean", "latents_std")
    }
    sdxl.vae.register_to_config(
        scaling_factor=0.5, latents_mean=mean.tolist(), latents_std=std.tolist()
    )
    try:
        found = agreement(model, sdxl, scheduler=EDMDPMSolverMultistepScheduler())
    finally:
        sdxl.vae.register_to_config(**own)
    assert found >= LEAST_DB


def test_cosxl_is_known_by_its_range(sdxl, tmp_path):
    tensors = single_file_tensors(sdxl, "sdxl")
    tensors |= {
        "edm_vpred.sigma_max": torch.tensor(100.0),
        "edm_vpred.sigma_min": torch.tensor(0.004),
    }
    save_file(tensors, tmp_path / "cosxl.safetensors")
    scheduler = EDMEulerScheduler(
        sigma_min=0.004, sigma_max=100.0, sigma_data=1.0, prediction_type="v_prediction"
    )
    model = Model.open(tmp_path / "cosxl.safetensors")
    assert agreement(model, sdxl, scheduler=scheduler) >= LEAST_DB


def test_a_flow_by_the_users_word(sdxl, tmp_path):
    file = write_single_file(tmp_path / "flow.safetensors", sdxl, "sdxl")
    model = Model.open(Source(model=str(file), prediction="flow", shift=4.0))
    assert agreement(model, sdxl, scheduler=Flow(shift=4.0)) >= LEAST_DB
    with pytest.raises(UsageError, match="no flow, which a shift is for"):
        Model.open(Source(model=str(file), shift=4.0))


class Flow(FlowMatchEulerDiscreteScheduler):
    """With what SDXL's pipeline asks of a scheduler besides."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample, timestep):
        return sample

    def step(self, *arguments, **options):
        options.pop("eta", None)
        return super().step(*arguments, **options)


def unet_alone(pipeline, how, path):
    """The U-Net in a file of its own, in one of the ways that people share it."""
    if how == "diffusers":
        save_file(pipeline.unet.state_dict(), path)
    elif how == "gguf":
        writer = gguf.GGUFWriter(path, "sd1")
        for key, tensor in _ldm_unet(pipeline.unet).items():
            data = tensor.float().numpy()
            kind = gguf.GGMLQuantizationType.Q8_0
            if data.ndim == 2 and data.shape[1] % 32 == 0:
                writer.add_tensor(key, quantize(data, kind), raw_dtype=kind)
            else:
                writer.add_tensor(key, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    else:
        prefix = {"bare": "", "comfy": "diffusion_model.", "ldm": UNET}[how]
        save_file(
            {prefix + k: t.contiguous().clone() for k, t in _ldm_unet(pipeline.unet).items()}, path
        )
    return path


@pytest.mark.parametrize("how", ["diffusers", "bare", "comfy", "ldm", "gguf"])
def test_a_u_net_alone_takes_the_rest_from_a_base(sd1, how, tmp_path):
    pipeline, base = sd1
    torch.manual_seed(3)
    other = make_pipeline("sd1")
    for parameter in other.unet.parameters():
        parameter.data.mul_(1.05)
    file = unet_alone(other, how, tmp_path / ("unet.gguf" if how == "gguf" else "unet.safetensors"))
    with pytest.raises(UnsupportedCheckpoint, match=r"a U-Net alone, .* with --base"):
        Model.open(file)
    if how == "gguf":
        kind = gguf.GGMLQuantizationType.Q8_0
        for parameter in other.unet.parameters():
            if parameter.ndim == 2 and parameter.shape[1] % 32 == 0:
                data = quantize(parameter.detach().float().numpy(), kind)
                parameter.data = torch.from_numpy(dequantize(data, kind))
    found = agreement(Model.open(Source(model=str(file), base=str(base))), other)
    assert found >= LEAST_DB
    (plain,) = theirs(pipeline)
    (changed,) = theirs(other)
    assert psnr(plain, changed) < 45.0  # else the base's own U-Net would have passed


def test_a_u_net_alone_in_scaled_8_bits_with_marks(sd1, tmp_path):
    """As ComfyUI writes them; its marks are no part of the U-Net."""
    _, base = sd1
    other = make_pipeline("sd1")
    tensors = {"scaled_fp8": torch.zeros(2), "ztsnr": torch.tensor(0.0)}
    own = dict(other.unet.named_parameters())
    for key, parameter in own.items():
        if parameter.ndim == 2:
            scale = parameter.detach().abs().max() / 448
            packed = (parameter.detach() / scale).to(torch.float8_e4m3fn)
            tensors |= {key: packed, key.removesuffix("weight") + "scale_weight": scale}
            parameter.data = packed.float() * scale
        else:
            tensors[key] = parameter.detach().clone()
    save_file(tensors, tmp_path / "unet.safetensors")
    model = Model.open(Source(model=str(tmp_path / "unet.safetensors"), base=str(base)))
    assert model.checkpoint.config.schedule.zero_snr
    model = Model.open(
        Source(model=str(tmp_path / "unet.safetensors"), base=str(base), zero_snr=False)
    )
    assert agreement(model, other) >= LEAST_DB


def test_a_base_of_another_family_is_refused(sd1, sdxl, tmp_path):
    _, base = sd1
    file = unet_alone(sdxl, "diffusers", tmp_path / "unet.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match="of different families"):
        Model.open(Source(model=str(file), base=str(base)))
    whole = write_single_file(tmp_path / "sdxl.safetensors", sdxl, "sdxl")
    with pytest.raises(UsageError, match="is a whole model: it takes nothing from --base"):
        Model.open(Source(model=str(whole), base=str(base)))


def test_a_file_without_an_autoencoder_takes_that_of_a_base(sd1, tmp_path):
    pipeline, base = sd1
    tensors = single_file_tensors(pipeline, "sd1")
    lean = {key: t for key, t in tensors.items() if not key.startswith("first_stage_model.")}
    save_file(lean, tmp_path / "lean.safetensors")
    model = Model.open(Source(model=str(tmp_path / "lean.safetensors"), base=str(base)))
    assert agreement(model, pipeline) >= LEAST_DB


def test_refiners_are_told_a_score(sdxl, tmp_path):
    """One file, and a folder: SDXL's second encoder alone, and five numbers beside its text."""
    torch.manual_seed(4)
    parts = {**sdxl.components, "tokenizer": None, "text_encoder": None}
    parts["unet"] = random_unet(
        block_out_channels=(64, 128),
        norm_num_groups=32,
        cross_attention_dim=64,
        attention_head_dim=[1, 2],
        **XL_UNET,
        projection_class_embeddings_input_dim=64 + 5 * 8,
    )
    del parts["image_encoder"], parts["feature_extractor"]
    refiner = StableDiffusionXLImg2ImgPipeline(
        **parts,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    refiner.set_progress_bar_config(disable=True)
    refiner.save_pretrained(tmp_path / "folder")
    tensors = single_file_tensors(sdxl, "sdxl")
    whole = {k: t for k, t in tensors.items() if k.startswith("first_stage_model.")}
    second = "conditioner.embedders.1."
    whole |= {
        k.replace(second, "conditioner.embedders.0."): t
        for k, t in tensors.items()
        if k.startswith(second)
    }
    whole |= {UNET + k: t.contiguous().clone() for k, t in _ldm_unet(refiner.unet).items()}
    save_file(whole, tmp_path / "refiner.safetensors")
    noise = torch.Generator().manual_seed(SEED)
    latents = torch.randn(1, 4, 8, 8, generator=noise)
    for source, target in CONVERSIONS.items():
        asked = Conversion(source=str(tmp_path / source), target=tmp_path / target)
        convert(asked, lambda *_: None)
    spoken = read_metadata(tmp_path / "file_of_folder.safetensors")["modelspec.architecture"]
    assert spoken == "stable-diffusion-xl-v1-refiner"
    back = StableDiffusionXLImg2ImgPipeline.from_pretrained(tmp_path / "folder_of_file")
    assert back.text_encoder is None
    assert back.config.requires_aesthetics_score
    for source in ("refiner.safetensors", "folder", *CONVERSIONS.values()):
        engine = Engine.load(tmp_path / source, device="cpu", dtype="fp32")
        assert engine.config.conditioning == "score"
        assert not engine.config.zero_empty_prompt
        (actual,) = our_pictures(engine, steps=4, **SIZE)
        (expected,) = refined_from_noise(refiner, latents)
        assert psnr(actual, expected) >= LEAST_DB, source


CONVERSIONS = {
    "refiner.safetensors": "folder_of_file",
    "folder": "file_of_folder.safetensors",
    "folder_of_file": "folder_of_folder",
}


def refined_from_noise(pipeline, latents):
    """diffusers' refiner on pure noise: img2img of nothing at strength 1, noised by our seed."""
    nothing = torch.zeros_like(latents)
    pipeline.prepare_latents = lambda *_, **__: latents * pipeline.scheduler.init_noise_sigma
    return diffusers_pictures(
        pipeline,
        image=nothing,
        strength=1.0,
        num_inference_steps=4,
        original_size=(32, 32),
        target_size=(32, 32),
    )
