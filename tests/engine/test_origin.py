"""The record of a picture's files: which they are, and that they are those that were read."""

import hashlib
import shutil
from pathlib import Path

import pytest

from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.engine.origin import Origin
from diffgen.engine.request import GenerateRequest
from diffgen.settings.model import Source
from diffgen.types import LoraRef
from diffgen.weights.registry import PACKAGE

STORYBOOK = PACKAGE / "assets" / "storybook"
LORA = PACKAGE / "assets" / "storybook-turbo" / "lora.safetensors"
PARTS = {
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_file_of_a_folder_is_named_with_its_hash() -> None:
    record = Origin(Model.open("storybook"), ()).record
    assert record["model_files"] == {name: digest(STORYBOOK / name) for name in PARTS}
    assert (record["model"], record["model_path"]) == ("storybook", None)
    assert record["prediction"] == Model.open("storybook").checkpoint.config.schedule.prediction


def test_a_lora_that_is_part_of_a_model_is_one_of_its_files() -> None:
    record = Origin(Model.open("storybook-turbo"), ()).record
    assert record["model_files"].keys() == PARTS | {"lora.safetensors"}
    assert record["model_files"]["lora.safetensors"] == digest(LORA)
    assert record["loras"] == []


def test_a_vae_and_loras_of_other_files() -> None:
    vae = STORYBOOK / "vae"
    model = Model.open(Source(model=str(STORYBOOK), vae=vae))
    record = Origin(model, [LoraRef(LORA, 0.5)]).record
    assert record["model_path"] == str(STORYBOOK)
    assert record["model_files"].keys() == PARTS - {"vae/diffusion_pytorch_model.safetensors"}
    name = "diffusion_pytorch_model.safetensors"
    assert record["vae_files"] == {name: digest(vae / name)}
    (lora,) = record["loras"]
    assert (lora["file"], lora["weight"], lora["sha256"]) == (str(LORA), 0.5, digest(LORA))
    assert len(lora["data_sha256"]) == 64 != lora["sha256"]


def test_what_was_asked_of_the_prediction_is_what_was_used() -> None:
    model = Model.open(Source(model="storybook", prediction="eps"))
    assert Origin(model, ()).record["prediction"] == "eps"


def test_a_file_that_changed_after_it_was_read_has_no_hash(sd1, tmp_path: Path) -> None:
    """Its picture is that of the file before."""
    folder = shutil.copytree(sd1.folder, tmp_path / "model")
    engine = Engine.load(folder, device="cpu", dtype="fp32")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"new")
    request = GenerateRequest(prompts=["x"], steps=1, width=32, height=32)
    (picture,) = engine.generate(request)
    files = picture.record["model_files"]
    assert files["unet/diffusion_pytorch_model.safetensors"] is None
    assert files["text_encoder/model.safetensors"] == digest(
        folder / "text_encoder" / "model.safetensors"
    )


@pytest.mark.parametrize("missing", [True, False])
def test_a_lora_that_cannot_be_read_is_left_to_its_reader(tmp_path: Path, missing: bool) -> None:
    path = tmp_path / "lora.safetensors"
    if not missing:
        path.mkdir()
    (lora,) = Origin(Model.open("storybook"), [LoraRef(path)]).record["loras"]
    assert (lora["sha256"], lora["data_sha256"]) == (None, None)
