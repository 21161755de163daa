"""A whole model in one file makes the pictures of diffusers' pipeline with the same weights."""

import pytest
from pipeline_oracle import diffusers_pictures, numpy_2_warns, our_pictures, psnr
from single_files import make_pipeline, write_single_file

from diffgen import Engine
from diffgen.engine.model import Model

pytestmark = [pytest.mark.parity, numpy_2_warns]

SIZE = {"width": 32, "height": 32}
LEAST_DB = 67.0  # as for folders


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_one_file_makes_the_same_picture(family, tmp_path):
    pipeline = make_pipeline(family)
    file = write_single_file(tmp_path / "model.safetensors", pipeline, family)
    engine = Engine.load(file, device="cpu", dtype="fp32")
    (actual,) = our_pictures(engine, steps=7, **SIZE)
    (expected,) = diffusers_pictures(pipeline, num_inference_steps=7, **SIZE)
    assert psnr(actual, expected) >= LEAST_DB
    assert engine.model.name == "model"


def test_another_autoencoder_and_prediction_make_the_same_picture(tmp_path):
    pipeline, other = make_pipeline("sd1"), make_pipeline("sd2")
    file = write_single_file(tmp_path / "model.safetensors", pipeline, "sd1")
    vae = write_single_file(tmp_path / "other.safetensors", other, "sd2")
    model = Model.open(file, vae=vae, prediction="v")
    (actual,) = our_pictures(Engine.load(model, device="cpu", dtype="fp32"), steps=7, **SIZE)
    pipeline.vae = other.vae
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    (expected,) = diffusers_pictures(pipeline, num_inference_steps=7, **SIZE)
    assert psnr(actual, expected) >= LEAST_DB
