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
from diffgen.errors import WeightsError

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
