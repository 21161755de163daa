"""diffgen.weights.quantised: weights packed by other programs are named as what they are."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffgen.errors import UnsupportedCheckpoint
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.files import read_header
from diffgen.weights.quantised import refuse_packed

if TYPE_CHECKING:
    from tiny_models import TinyModel

KEY = "unet.down_blocks.0.attentions.0.proj_in"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{KEY}.weight.quant_state.bitsandbytes__nf4": torch.ones(1)}, "4 bits of bitsandbytes"),
        ({f"{KEY}.SCB": torch.ones(1)}, "8 bits of bitsandbytes"),
        ({f"{KEY}.weight_scale_2": torch.ones(1)}, "NVFP4"),
        ({f"{KEY}.wscales": torch.ones(1)}, "SVDQuant"),
        ({f"{KEY}.qweight": torch.ones(1, dtype=torch.int32)}, "GPTQ or AWQ"),
        ({f"{KEY}.zero_point": torch.ones(1)}, "SDNQ"),
        ({f"{KEY}.weight._data": torch.ones(1, dtype=torch.int8)}, "Quanto"),
        ({f"{KEY}.weight": torch.ones(1, dtype=torch.int8)}, rf"are integers \({KEY}.weight I8\)"),
    ],
)
def test_each_is_named(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    said = f"{message}.*which diffgen does not read; take the model in fp16"
    with pytest.raises(UnsupportedCheckpoint, match=said):
        refuse_packed(read_header(tmp_path / "x.safetensors"))


def test_numbers_that_are_no_weights_may_be_whole(tmp_path: Path) -> None:
    marks = {"x.comfy_quant": torch.ones(9, dtype=torch.uint8), "ids": torch.arange(4)}
    save_file(marks | {"x.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    refuse_packed(read_header(tmp_path / "x.safetensors"))


def test_a_folder_names_its_component(sd1: "TinyModel", tmp_path: Path) -> None:
    folder = shutil.copytree(sd1.folder, tmp_path / "model")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"x.SCB": torch.ones(1)}, file)
    with pytest.raises(UnsupportedCheckpoint, match=r"unet cannot be used: its weights are packed"):
        Checkpoint.open(folder)
