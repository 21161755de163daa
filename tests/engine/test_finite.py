"""Who is to blame for numbers that are not finite."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen import Engine, GenerateRequest
from diffgen.engine.finite import not_finite
from diffgen.engine.model import Model
from diffgen.errors import DiffgenError, WeightsError
from diffgen.types import LoraRef

if TYPE_CHECKING:
    from tiny_models import TinyModel


def test_half_precision_is_blamed_where_the_files_are_sound(sd1: "TinyModel") -> None:
    error = not_finite("sampling", torch.bfloat16, Model.open(sd1.folder).checkpoint)
    assert str(error) == "sampling in bf16 gave numbers that are not finite; try --dtype fp32"


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae"])
def test_a_file_with_nan_is_named(sd1: "TinyModel", tmp_path: Path, component: str) -> None:
    folder = shutil.copytree(sd1.folder, tmp_path / "sd1")
    (file,) = (folder / component).glob("*.safetensors")
    tensors = load_file(file)
    # Every tensor as a download of noise would have it.
    save_file({name: torch.full_like(t, torch.nan) for name, t in tensors.items()}, file)
    engine = Engine.load(folder, device="cpu", dtype="fp32")
    with pytest.raises(WeightsError, match="has numbers that are not finite") as caught:
        list(engine.generate(GenerateRequest(prompts=["a barn"], steps=1)))
    said = str(caught.value)
    assert said.startswith(f"{file}: the tensor ")
    assert said.split()[3] in tensors
    assert "dtype" not in said


@pytest.mark.parametrize("large", ["lora_A", "lora_B"])
def test_a_lora_that_overflows_is_named(sd1: "TinyModel", tmp_path: Path, large: str) -> None:
    query = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    shapes = {"lora_A": (2, 64), "lora_B": (64, 2)}
    tensors = {f"{query}.{part}.weight": torch.ones(shape) for part, shape in shapes.items()}
    save_file(tensors, tmp_path / "sound.safetensors")
    save_file(
        {key: t * 3e38 if large in key else t for key, t in tensors.items()},
        tmp_path / "l.safetensors",
    )
    loras = [LoraRef(tmp_path / "sound.safetensors"), LoraRef(tmp_path / "l.safetensors", 10.0)]
    engine = Engine.load(sd1.folder, device="cpu", dtype="fp32", loras=loras)
    said = rf"{tmp_path / 'l.safetensors'} makes mid_block\S+ numbers that are not finite"
    with pytest.raises(WeightsError, match=said):
        list(engine.generate(GenerateRequest(prompts=["a barn"], steps=1)))


def test_weights_of_loras_are_advised_about(sd1: "TinyModel", tmp_path: Path) -> None:
    query = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
    tensors = {
        f"{query}.lora_A.weight": torch.ones(1, 64),
        f"{query}.lora_B.weight": torch.ones(64, 1),
    }
    save_file({key: t * 1e18 for key, t in tensors.items()}, tmp_path / "l.safetensors")
    loras = [LoraRef(tmp_path / "l.safetensors", 100.0)]
    engine = Engine.load(sd1.folder, device="cpu", dtype="fp32", loras=loras)
    with pytest.raises(DiffgenError, match=r"less guidance, or lower weights of the LoRAs$"):
        list(engine.generate(GenerateRequest(prompts=["a barn"], steps=1)))
