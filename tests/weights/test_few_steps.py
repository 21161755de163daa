"""diffgen.weights.few_steps: distilled models are known by their names, and sampled as they should be."""

import hashlib
from dataclasses import replace

import pytest
from safetensors.torch import save_file
from single_files import make_pipeline, single_file_tensors

from diffgen.engine.model import Model
from diffgen.engine.request import GenerateRequest
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import NoiseConfig
from diffgen.weights import few_steps
from diffgen.weights.few_steps import as_distilled, known_kind

SDXL = ModelConfig(
    family="sdxl",
    text=(ClipTextConfig(),),
    unet=UNetConfig(sample_size=128),
    vae=VaeConfig(),
    schedule=NoiseConfig(sampler="euler"),
)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sdxl_lightning_4step", ("euler", "trailing", 4, 1.0)),
        ("sdxl_lightning_8step_unet", ("euler", "trailing", 8, 1.0)),
        ("SDXL-Lightning", ("euler", "trailing", 4, 1.0)),
        ("Hyper-SDXL-8steps-CFG", ("ddim", "trailing", 8, 5.0)),
        ("Hyper-SD15-4steps", ("ddim", "trailing", 4, 1.0)),
        ("sd_xl_turbo_1.0_fp16", ("euler", "trailing", 1, 1.0)),
        ("sd_turbo", ("euler", "trailing", 1, 1.0)),
        ("DreamShaperXL_Turbo_V2-SFW", ("dpmpp_sde", "karras", 6, 2.0)),
        ("dmd2_sdxl_4step_unet", ("lcm", "lcm", 4, 1.0)),
        ("LCM_Dreamshaper_v7", ("lcm", "lcm", 4, 1.0)),
        ("sd_xl_base_1.0", None),
        ("welcmen", None),
        ("", None),
    ],
)
def test_names_of_real_files(name, settings):
    kind = known_kind([name])
    found = kind and (kind.sampler, kind.spacing, kind.steps, kind.guidance)
    assert found == settings


def test_turbo_draws_at_512(caplog):
    config = as_distilled(SDXL, ["sd_xl_turbo_1.0"], {}, "sd_xl_turbo_1.0.safetensors")
    assert config.unet.sample_size == 64
    assert "Stable Diffusion Turbo, by its name: 1 step of euler on trailing" in caplog.text


def test_x0_is_predicted_in_one_step_unless_the_user_knows_better():
    name = ["sdxl_lightning_1step_unet_x0"]
    assert as_distilled(SDXL, name, {}, "it").schedule.prediction == "sample"
    asked = {"prediction": "eps"}
    assert as_distilled(SDXL, name, asked, "it").schedule.prediction == "eps"


def test_a_folder_says_its_sampler_itself():
    schedule = replace(SDXL.schedule, sampler="euler_a", spacing="trailing")
    own = replace(SDXL, schedule=schedule)
    config = as_distilled(own, ["sdxl-turbo"], {}, "sdxl-turbo", says_sampler=True)
    assert config.schedule == schedule
    assert (config.steps, config.guidance, config.unet.sample_size) == (1, 1.0, 128)


def test_a_folder_with_its_bases_scheduler_says_nothing_of_few_steps():
    base = replace(SDXL, schedule=replace(SDXL.schedule, sampler="euler", spacing="leading"))
    config = as_distilled(base, ["my-hyper-sd-8step"], {}, "my", says_sampler=True)
    assert (config.schedule.sampler, config.schedule.spacing) == ("ddim", "trailing")


@pytest.mark.parametrize("by_title", [False, True])
def test_a_file_is_sampled_so_unless_told_otherwise(tmp_path, by_title):
    tensors = single_file_tensors(make_pipeline("sdxl"), "sdxl")
    file = tmp_path / ("model.safetensors" if by_title else "my_lightning_2step.safetensors")
    metadata = {"modelspec.title": "My Lightning (2 steps)"} if by_title else None
    save_file(tensors, file, metadata)
    model = Model.open(file)
    plan = model.plan(GenerateRequest(prompts=["a"]))
    assert len(plan.sampling.sigmas) == 3
    assert (plan.sampling.spec.name, plan.sampling.schedule) == ("euler", "trailing")
    assert plan.guidance_scale == 1.0
    own = model.plan(GenerateRequest(prompts=["a"], steps=5, guidance_scale=3.0, sampler="ddim"))
    assert (len(own.sampling.sigmas), own.guidance_scale) == (6, 3.0)
    assert own.sampling.spec.name == "ddim"


def test_a_file_of_any_name_is_known_by_its_bytes(tmp_path, monkeypatch, caplog):
    file = tmp_path / "model.safetensors"
    save_file(single_file_tensors(make_pipeline("sdxl"), "sdxl"), file)
    size, digits = file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()
    registry = tmp_path / "weights.toml"
    monkeypatch.setattr(few_steps, "registry_path", lambda: registry)

    def steps_of(size, digits):
        registry.write_text(ENTRY.format(size=size, digits=digits))
        return Model.open(file).checkpoint.config.steps

    assert steps_of(size, digits) == 8
    assert "is taken for SDXL-Lightning, by its sha256: 8 steps of euler on trailing" in caplog.text
    assert steps_of(size, "0" * 64) is None
    monkeypatch.setattr(few_steps, "sha256", None)  # not even asked for a file of another size
    assert steps_of(size + 1, digits) is None


ENTRY = """
[light]
description = "x"
license = "x"
repository = "a/b"
steps = 8
files = [{{ path = "sdxl_lightning_8step.safetensors", size = {size}, sha256 = "{digits}" }}]
"""
