"""A whole model in one file makes the pictures of diffusers' pipeline with the same weights."""

import pytest
from diffusers import DDIMScheduler
from pipeline_oracle import diffusers_pictures, numpy_2_warns, our_pictures, psnr
from safetensors.torch import save_file
from single_files import make_pipeline, single_file_tensors, write_single_file

from diffgen import Engine
from diffgen.engine.model import Model
from diffgen.settings.model import Source

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
    model = Model.open(Source(model=str(file), vae=vae, prediction="v"))
    (actual,) = our_pictures(Engine.load(model, device="cpu", dtype="fp32"), steps=7, **SIZE)
    pipeline.vae = other.vae
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    (expected,) = diffusers_pictures(pipeline, num_inference_steps=7, **SIZE)
    assert psnr(actual, expected) >= LEAST_DB


def pictures_of(file, pipeline, *, ours=(), **call):
    engine = Engine.load(
        Model.open(Source(model=str(file), **dict(ours))), device="cpu", dtype="fp32"
    )
    (actual,) = our_pictures(engine, steps=7, sampler="ddim", schedule="leading", **SIZE)
    (expected,) = diffusers_pictures(pipeline, num_inference_steps=7, **SIZE, **call)
    return psnr(actual, expected)


def ddim(pipeline, **options):
    kept = {key: pipeline.scheduler.config[key] for key in ("beta_start", "beta_end")}
    return DDIMScheduler(
        **kept,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        **options,
    )


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("how", ["yaml", "metadata", "options"])
def test_v_prediction_and_zero_snr_by_whatever_says_so(family, how, tmp_path):
    pipeline, file = make_pipeline(family), tmp_path / "model.safetensors"
    said = {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}
    save_file(
        single_file_tensors(pipeline, family), file, metadata=said if how == "metadata" else None
    )
    if how == "yaml":
        text = "model: {params: {parameterization: v, ztsnr: true}}"
        file.with_suffix(".yaml").write_text(text)
    given = {"prediction": "v", "zero_snr": True} if how == "options" else {}
    scheduler = ddim(pipeline, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert pictures_of(file, pipeline, ours=given, scheduler=scheduler) >= LEAST_DB


@pytest.mark.parametrize(
    ("family", "theirs", "layer"), [("sd1", 1, 2), ("sd1", 2, 3), ("sd2", 1, 2), ("sdxl", 1, 3)]
)
def test_clip_skip_counts_as_a1111_does(family, theirs, layer, tmp_path):
    """diffusers counts the layers left out, on SDXL from its own last but one."""
    pipeline = make_pipeline(family)
    encoder = pipeline.text_encoder
    if not hasattr(encoder, "text_model"):  # which diffusers asks for and transformers 5 dropped
        encoder.__dict__["text_model"] = encoder
    file = write_single_file(tmp_path / "model.safetensors", pipeline, family)
    engine = Engine.load(file, device="cpu", dtype="fp32")
    (actual,) = our_pictures(engine, steps=7, clip_skip=layer, **SIZE)
    (expected,) = diffusers_pictures(pipeline, num_inference_steps=7, clip_skip=theirs, **SIZE)
    (plain,) = our_pictures(engine, steps=7, **SIZE)
    assert psnr(actual, expected) >= LEAST_DB
    assert psnr(plain, expected) < 40
