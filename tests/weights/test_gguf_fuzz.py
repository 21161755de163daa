"""Mutations of GGUF files and of the names in a file end in one line that names the file."""

import time
from random import Random

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged_bytes
from safetensors.torch import save_file

from diffgen.errors import DiffgenError
from diffgen.weights import reading
from diffgen.weights.gguf import read_gguf
from diffgen.weights.ldm.single_file import open_single_file

LIMITS = settings(
    max_examples=500,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NAMES = [
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.1.0.out_layers.3.weight",
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "model.diffusion_model.middle_block.0.in_layers.0.weight",
    "model.diffusion_model.label_emb.0.0.weight",
    "model.diffusion_model.out.2.weight",
    "down_blocks.0.resnets.0.conv1.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "up_blocks.0.resnets.0.conv1.weight",
    "input_blocks.0.0.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "conditioner.embedders.0.model.token_embedding.weight",
    "conditioner.embedders.1.model.text_projection",
    "first_stage_model.decoder.conv_in.weight",
    "first_stage_model.encoder.conv_in.weight",
    "edm_mean",
    "edm_std",
    "edm_vpred.sigma_max",
    "v_pred",
    "lora_unet_x.alpha",
    "double_blocks.0.img_mod.lin.weight",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "TICK_NS", 0)  # nobody else writes to these files
        yield tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(path, "sd1")
    writer.add_array("some.texts", ["a", "b"])
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("a", quantize(np.ones((2, 64), np.float32), kind), raw_dtype=kind)
    writer.add_tensor("b", np.ones((3, 5), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def refused_or_read(path, action) -> None:
    start = time.process_time()
    try:
        action()
    except DiffgenError as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        assert len(message) < 1500
    assert time.process_time() - start < 5.0


@LIMITS
@given(st.randoms(use_true_random=False))
def test_headers_of_gguf(place, whole, rng: Random) -> None:
    path = place / "model.gguf"
    path.write_bytes(damaged_bytes(whole, rng))

    def read() -> None:
        for info in read_gguf(path)[0].values():
            assert all(type(size) is int and size >= 0 for size in info.shape)

    refused_or_read(path, read)


@LIMITS
@given(st.randoms(use_true_random=False))
def test_files_of_any_names_and_shapes(place, rng: Random) -> None:
    path = place / "model.safetensors"
    names = rng.sample(NAMES, rng.randrange(1, 8))
    shapes = [(), (4,), (4, 4), (8, 4, 3, 3), (1, 4, 1, 1)]
    tensors = {name: torch.zeros(rng.choice(shapes)) for name in names}
    save_file(tensors, path)
    refused_or_read(path, lambda: open_single_file(path))
