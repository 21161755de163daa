"""diffgen.weights.ldm.claims: what a YAML beside a file and the file's metadata say of its training."""

import logging
from pathlib import Path

import pytest

from diffgen.errors import ConfigError, UnsupportedCheckpoint
from diffgen.weights.ldm.claims import Claim, read_claims, settle

A1111 = """
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: "v"
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
"""
SGM = """
model:
  target: sgm.models.diffusion.DiffusionEngine
  params:
    denoiser_config:
      params:
        scaling_config:
          target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling
    ztsnr: true
"""
DISCRETIZATION = """
    sampler_config:
      params:
        discretization_config:
          target: sgm.modules.diffusionmodules.discretizer.{}Discretization
          params: {{linear_start: 0.001, linear_end: 0.02}}
"""
LINEAR = {"beta_start": 0.001, "beta_schedule": "linear"}
GIVEN = {"betas": (0.1, 0.2), "num_train_timesteps": 2}


def said(path: Path, metadata: dict[str, str] | None = None, **given: object) -> dict[str, object]:
    return settle([Claim("you", given), *read_claims(path, metadata or {}, given)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (A1111, {"prediction": "v", "beta_end": 0.012, "num_train_timesteps": 1000}),
        (A1111.replace('"v"', "eps"), {"prediction": "eps"}),
        (A1111.replace("    parameterization", "    other"), {"prediction": "eps"}),
        (SGM, {"prediction": "v", "zero_snr": True}),
        (SGM.replace("VScaling", "EpsScaling").replace("true", "false"), {"zero_snr": False}),
        (SGM.replace("VScaling", "EDMScaling"), {"prediction": "edm"}),
        (SGM.replace("VScaling", "VScalingWithEDMcNoise"), {"prediction": "edm_v"}),
        (SGM + DISCRETIZATION.format("LegacyDDPM"), {"prediction": "v", "beta_end": 0.02}),
        (
            SGM.replace("    ztsnr: true\n", DISCRETIZATION.format("ZeroSNRDDPM")),
            {"zero_snr": True},
        ),
        ("p: &p {parameterization: v}\nmodel:\n  params:\n    <<: *p\n", {"prediction": "v"}),
        ('{"model": {"params": {"parameterization": "V"}}}', {"prediction": "v"}),
        ("\ufeff" + A1111.replace("\n", "\r\n"), {"prediction": "v", "beta_start": 0.00085}),
        (f"---{A1111}---\nmore: 1\n", {"prediction": "v"}),
        ("prediction_type: v_prediction\nzero_terminal_snr: yes", {"zero_snr": True}),
        ("model: {params: {linear_start: 1e-3, beta_schedule: sqrt_linear}}", LINEAR),
        ("model: {params: {given_betas: [0.1, 0.2]}}", GIVEN),
        ("model: {params: {scale_factor: 0.5, parameterization: null}}", {"scaling_factor": 0.5}),
        ("timesteps: 20", {}),  # of a sampler, perhaps
        ("about: a picture of a cat", {}),
        ("", {}),
        ("[1, 2]", {}),
    ],
)
@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML", ".safetensors.yaml"])
def test_a_yaml_of_the_models_name(
    text: str, expected: dict[str, object], suffix: str, tmp_path: Path
) -> None:
    (tmp_path / f"a.v1{suffix}").write_text(text)
    found = said(tmp_path / "a.v1.safetensors")
    assert expected.items() <= found.items()
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, {"prediction": "v"}),
        ({"modelspec.prediction_type": "epsilon"}, {"prediction": "eps"}),
        ({"modelspec.predict_key": "v"}, {"prediction": "v"}),
        ({"ss_v_parameterization": "True"}, {"prediction": "v"}),
        ({"ss_v_parameterization": "None"}, {}),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, {"prediction": "v"}),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, {"prediction": "eps"}),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base"}, {}),
        ({"modelspec.prediction_type": "V-Prediction"}, {"prediction": "v"}),
        ({"modelspec.prediction_type": "v_pred"}, {"prediction": "v"}),
        ({"modelspec.prediction_type": "velocity"}, {"prediction": "v"}),
        ({"modelspec.prediction_type": "x0_prediction"}, {"prediction": "sample"}),
        ({"modelspec.prediction_type": "null"}, {}),
        ({"modelspec.predict_key": "noise"}, {"prediction": "eps"}),
        ({"ss_prediction_type": "v"}, {"prediction": "v"}),
        ({"ss_parameterization": "v"}, {"prediction": "v"}),
        ({"SS_V_PRED": "yes"}, {"prediction": "v"}),
        ({"ss_v_parameterization": "False"}, {"prediction": "eps"}),
        ({"ss_base_model_version": "sd_v2_768_v"}, {"prediction": "v"}),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, {}),
        ({"ss_discrete_flow_shift": "2.5"}, {"shift": 2.5}),
        ({"ss_zero_terminal_snr": "True"}, {"zero_snr": True}),
        ({"ss_zero_terminal_snr": "None"}, {}),
        ({"modelspec.use_ztsnr": "on"}, {"zero_snr": True}),
        ({"ss_clip_skip": "-2"}, {"clip_skip": 2}),
        ({"ss_clip_skip": "2.0"}, {"clip_skip": 2}),
        ({"ss_clip_skip": "0"}, {}),
        ({"ss_clip_skip": "some"}, {}),
        ({"modelspec.encoder_layer": "2"}, {"clip_skip": 2}),
        ({"ss_clip_skip": "None", "modelspec.title": "x"}, {}),
    ],
)
def test_metadata_of_trainers(
    metadata: dict[str, str], expected: dict[str, object], tmp_path: Path
) -> None:
    assert said(tmp_path / "a.safetensors", metadata) == expected


def test_what_is_said_first_counts_and_contradictions_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.yaml").write_text(A1111)
    spoken = {"modelspec.prediction_type": "epsilon"}
    with caplog.at_level(logging.INFO, "diffgen"):
        assert said(tmp_path / "a.safetensors", spoken)["prediction"] == "v"
    assert "prediction is v, by a.yaml" in caplog.text
    (warned,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "modelspec.prediction_type says that prediction is eps, a.yaml that it is v" in warned
    assert said(tmp_path / "a.safetensors", spoken, prediction="sample")["prediction"] == "sample"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("model: [", ConfigError, "not valid YAML"),
        ("model:\n\tparams:", ConfigError, r"a\.yaml:2: .*not valid YAML \(found character"),
        (
            A1111 + "    parameterization: eps\n",
            ConfigError,
            r':9: the key "parameterization" is th',
        ),
        ("{[1]: 2}", ConfigError, "not valid YAML"),
        (
            SGM.replace("VScaling", "OtherScaling"),
            UnsupportedCheckpoint,
            '"OtherScaling", which is n',
        ),
        (A1111 + "    zsnr: maybe\n", UnsupportedCheckpoint, "say it with --zero-snr"),
        ("model: {params: {beta_schedule: odd}}", UnsupportedCheckpoint, 'schedule is "odd"'),
        ("model: {params: {given_betas: [1]}}", UnsupportedCheckpoint, "given_betas is"),
        ("a: !!python/object/apply:os.getcwd []", ConfigError, "not valid YAML"),
        ("[" * 5000, ConfigError, "not valid YAML"),
        ("a: " + "b" * (1 << 20), ConfigError, "too large"),
        (A1111.replace('"v"', "score"), UnsupportedCheckpoint, 'parameterization is "score"'),
        (A1111.replace("1000", "many"), UnsupportedCheckpoint, 'timesteps is "many"'),
    ],
)
def test_a_yaml_that_cannot_be_read_is_named(
    text: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(kind, match=message) as caught:
        said(tmp_path / "a.safetensors")
    assert "a.yaml" in str(caught.value)


def test_a_prediction_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match='prediction_type is "score", which is not'):
        said(tmp_path / "a.safetensors", {"modelspec.prediction_type": "score"})
    assert said(
        tmp_path / "a.safetensors", {"modelspec.prediction_type": "score"}, prediction="v"
    ) == {"prediction": "v"}


def test_what_the_user_says_is_not_asked_of_a_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SGM.replace("VScaling", "OtherScaling"))
    found = said(tmp_path / "a.safetensors", prediction="v", zero_snr=False)
    assert found == {"prediction": "v", "zero_snr": False}


def test_a_noise_that_nobody_here_knows_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.yaml").write_text(SGM + DISCRETIZATION.format("Odd"))
    assert said(tmp_path / "a.safetensors")["prediction"] == "v"
    assert "the discretization OddDiscretization is not known and not read" in caplog.text


TEXT = """
model:
  params:
    cond_stage_config:
      target: ldm.modules.encoders.modules.{}
      params: {{{}}}
"""
CLIP, OPEN = "FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder"
NOT_READ = "is not read as it says; --clip-skip names a layer"
OF_XL = """
model:
  params:
    conditioner_config:
      params:
        emb_models:
          - target: sgm.modules.encoders.modules.FrozenCLIPEmbedder
            params: {layer: hidden, layer_idx: 11}
          - target: sgm.modules.encoders.modules.FrozenOpenCLIPEmbedder2
            params: {arch: ViT-bigG-14, freeze: true, layer: penultimate, legacy: false}
          - 7
"""


@pytest.mark.parametrize(
    ("text", "skip", "warned"),
    [
        (TEXT.format(OPEN, "freeze: true, layer: penultimate"), None, None),
        (TEXT.format(CLIP, "layer: penultimate"), 2, None),
        (TEXT.format(CLIP, "layer: last"), None, None),
        (TEXT.format(CLIP, "layer: hidden, layer_idx: 9"), None, f'layer "hidden 9" {NOT_READ}'),
        (TEXT.format(OPEN, "layer: last"), None, f'layer "last" {NOT_READ}'),
        (TEXT.format(OPEN, "arch: ViT-g-14"), None, 'encoder "ViT-g-14" is not known'),
        (OF_XL, None, None),
        (OF_XL.replace("penultimate", "last"), None, f'layer "last" {NOT_READ}'),
        ("model: {params: {cond_stage_config: 3, conditioner_config: [1]}}", None, None),
    ],
)
def test_the_layer_of_a_text_encoder_is_read_or_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, skip: object, warned: str | None
) -> None:
    (tmp_path / "m.yaml").write_text(text)
    found = said(tmp_path / "m.safetensors")
    assert found.get("clip_skip") == skip
    messages = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert (warned in messages[0] and len(messages) == 1) if warned else not messages
