"""diffgen.weights.vae: an autoencoder from wherever people keep theirs."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf_files import write_plain_gguf
from safetensors.torch import load_file, save_file
from single_files import make_pipeline, single_file_tensors, write_single_file

from diffgen.errors import DiffgenError, UsageError
from diffgen.models.build import build_empty
from diffgen.models.vae import Autoencoder
from diffgen.weights.checkpoint import Checkpoint

PREFIX = "first_stage_model."


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline("sd1")


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory) -> Path:
    return write_single_file(tmp_path_factory.mktemp("m") / "model.safetensors", pipeline, "sd1")


@pytest.fixture(scope="module")
def bare(pipeline, tmp_path_factory) -> Path:
    """The model with another autoencoder's numbers, and that autoencoder in all its forms."""
    folder = tmp_path_factory.mktemp("vae")
    tensors = single_file_tensors(pipeline, "sd1")
    turned = {key: -tensor if key.startswith(PREFIX) else tensor for key, tensor in tensors.items()}
    save_file(turned, folder / "whole.safetensors")
    vae = {k.removeprefix(PREFIX): v for k, v in turned.items() if k.startswith(PREFIX)}
    extra = {"loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)}
    save_file(vae | extra, folder / "vae.safetensors")
    save_file(
        {f"{PREFIX}{key}": tensor for key, tensor in vae.items()}, folder / "kept.safetensors"
    )
    diffusers = {key: -tensor for key, tensor in pipeline.vae.state_dict().items()}
    (folder / "model" / "vae").mkdir(parents=True)
    save_file(diffusers, folder / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    pipeline.vae.save_config(folder / "model" / "vae")
    return folder


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    assert checkpoint.config.vae is not None
    module = build_empty(Autoencoder, checkpoint.config.vae)
    checkpoint.load_into("vae", module, dtype=torch.float32)
    return module.state_dict()


@pytest.mark.parametrize(
    "form",
    [
        *("vae.safetensors", "kept.safetensors", "whole.safetensors", "model/vae", "model"),
        "model/vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_every_form_gives_its_weights(pipeline, model, bare, form):
    checkpoint = Checkpoint.open(model, vae=bare / form)
    ours, theirs = weights(checkpoint), pipeline.vae.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], -theirs[key]) for key in theirs)
    assert checkpoint.config == Checkpoint.open(model).config


def test_a_file_without_an_autoencoder_takes_one(pipeline, bare, tmp_path):
    tensors = single_file_tensors(pipeline, "sd1")
    lone = tmp_path / "lone.safetensors"
    save_file({k: v for k, v in tensors.items() if not k.startswith(PREFIX)}, lone)
    with pytest.raises(DiffgenError, match="has no autoencoder; give one with --vae"):
        Checkpoint.open(lone)
    opened = Checkpoint.open(lone, vae=bare / "vae.safetensors")
    assert opened.config == Checkpoint.open(bare / "whole.safetensors").config
    assert weights(opened).keys() == weights(Checkpoint.open(bare / "whole.safetensors")).keys()


def test_how_latents_are_scaled(model, bare, tmp_path):
    """A folder says it; a file does not, so the model whose latents they are does."""
    folder = tmp_path / "scaled"
    shutil.copytree(bare / "model" / "vae", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5}))
    assert Checkpoint.open(model, vae=folder).config.vae.scaling_factor == 0.5
    own = Checkpoint.open(model).config
    told = replace(own, vae=replace(own.vae, scaling_factor=0.25, force_upcast=True))
    from diffgen.weights.vae import open_vae

    config, _ = open_vae(bare / "vae.safetensors", told)
    assert (config.scaling_factor, config.force_upcast) == (0.25, True)


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"_class_name": "UNet2DConditionModel", "block_out_channels": [8]},
        {"_class_name": "AutoencoderKL", "block_out_channels": [32, 32], "scaling_factor": 3.0},
    ],
)
def test_a_file_in_diffusers_names_needs_no_config(model, bare, tmp_path, beside):
    """That of another network may lie beside it: downloads share a folder."""
    file = tmp_path / "vae.safetensors"
    shutil.copy(bare / "model" / "vae" / "diffusion_pytorch_model.safetensors", file)
    if beside:
        (tmp_path / "config.json").write_text(json.dumps(beside))
    ours = Checkpoint.open(model, vae=file)
    assert ours.config.vae == Checkpoint.open(model).config.vae
    expected = weights(Checkpoint.open(model, vae=bare / "model" / "vae"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(ours).items())


def test_a_prediction_that_no_name_tells(model):
    assert Checkpoint.open(model).config.schedule.prediction == "eps"
    assert Checkpoint.open(model, prediction="v").config.schedule.prediction == "v"


def test_what_is_no_autoencoder(model, bare, tmp_path):
    wide = {
        key: tensor.repeat(1, 2, 1, 1) if key == "decoder.conv_in.weight" else tensor
        for key, tensor in load_file(bare / "vae.safetensors").items()
    }
    save_file(wide, tmp_path / "wide.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "none", f"there is no autoencoder at {tmp_path / 'none'}"),
        (tmp_path / "wide.safetensors", "it has 8 latent channels, the model's U-Net 4"),
        (
            tmp_path / "other.safetensors",
            "cannot be used as autoencoder: it has no decoder.conv_in.weight; its tensors are a",
        ),
        (tmp_path / "text.safetensors", "is not a safetensors file"),
        (tmp_path / "empty", "has no weights: expected diffusion_pytorch_model.safetensors"),
    ]:
        with pytest.raises(DiffgenError, match=re.escape(message)) as caught:
            Checkpoint.open(model, vae=path)
        assert str(tmp_path) in str(caught.value)
        assert isinstance(caught.value, UsageError) == (path.name == "none")


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "decoder.conv_out.weight"])
def test_a_vector_where_all_have_a_matrix(model, bare, tmp_path, name):
    tensors = load_file(bare / "vae.safetensors")
    save_file(tensors | {name: torch.tensor(1.0)}, tmp_path / "vae.safetensors")
    with pytest.raises(DiffgenError, match=r"vae\.safetensors cannot be used as autoencoder: its"):
        Checkpoint.open(model, vae=tmp_path / "vae.safetensors")


@pytest.mark.parametrize("prefix", ["model.first_stage_model.", "autoencoder.", "module.", "vae."])
def test_prefixes_of_other_programs(model, bare, tmp_path, prefix):
    tensors = load_file(bare / "vae.safetensors")
    save_file({prefix + k: t for k, t in tensors.items()}, tmp_path / "VAE.SAFETENSORS")
    ours = weights(Checkpoint.open(model, vae=tmp_path / "VAE.SAFETENSORS"))
    expected = weights(Checkpoint.open(model, vae=bare / "vae.safetensors"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())


def test_gguf(model, bare, tmp_path):
    tensors = load_file(bare / "vae.safetensors")
    file = write_plain_gguf(tmp_path / "vae.gguf", {k: t.numpy() for k, t in tensors.items()})
    ours = weights(Checkpoint.open(model, vae=file))
    expected = weights(Checkpoint.open(model, vae=bare / "vae.safetensors"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("decoder.layers.1.conv.0.weight", r"it is a tiny decoder \(TAESD\); give it with --decod"),
        ("lora_unet_x.lora_up.weight", "it is a LoRA; give it with --lora"),
        ("input_blocks.0.0.weight", "it is a U-Net"),
    ],
)
def test_files_of_other_kinds_are_named(model, tmp_path, key, said):
    save_file({key: torch.zeros(4, 4)}, tmp_path / "x.safetensors")
    with pytest.raises(DiffgenError, match=f"cannot be used as autoencoder: {said}"):
        Checkpoint.open(model, vae=tmp_path / "x.safetensors")


def test_a_decoder_alone_is_called_so(model: Path, bare: Path, tmp_path: Path) -> None:
    whole = load_file(bare / "vae.safetensors")
    half = {key: each for key, each in whole.items() if not key.startswith("encoder.")}
    save_file(half, tmp_path / "half.safetensors")
    with pytest.raises(DiffgenError, match="its autoencoder is a decoder alone, and both halves"):
        Checkpoint.open(model, vae=tmp_path / "half.safetensors")
