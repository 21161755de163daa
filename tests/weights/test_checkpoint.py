"""diffgen.weights.checkpoint: opening model folders and filling modules from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffgen.errors import ConfigError, WeightsError
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Component
from diffgen.weights import files
from diffgen.weights.checkpoint import Checkpoint, components
from diffgen.weights.finding import resolve

if TYPE_CHECKING:
    from tiny_models import TinyModel

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
QUERY = "decoder.mid_block.attentions.0.to_q.weight"

Rewrite = Callable[[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]], Path]


def on_meta(config: ModelConfig, component: Component) -> nn.Module:
    with torch.device("meta"):
        if component == "unet":
            return UNet(config.unet)
        if component == "vae":
            assert config.vae is not None
            return Autoencoder(config.vae)
        return ClipTextModel(config.text[component == "text_encoder_2"])


def loaded(folder: Path, component: Component, dtype: torch.dtype = torch.float32) -> nn.Module:
    checkpoint = Checkpoint.open(folder)
    module = on_meta(checkpoint.config, component)
    checkpoint.load_into(component, module, dtype=dtype)
    return module


@pytest.fixture
def rewrite(sd1: TinyModel, tmp_path: Path) -> Rewrite:
    """rewrite(file, change): a copy of the tiny SD 1 with the tensors of one file changed."""

    def write(file: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(sd1.folder, folder)
        save_file(change(load_file(folder / file)), folder / file)
        return folder

    return write


@pytest.mark.parity
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_tensor_lands_where_the_oracle_has_it(
    family: str, request: pytest.FixtureRequest
) -> None:
    model: TinyModel = request.getfixturevalue(family)
    config = Checkpoint.open(model.folder).config
    for component in components(config):
        ours = loaded(model.folder, component).state_dict()
        oracle = getattr(model.pipeline, component).state_dict()
        if component.startswith("text"):  # whose prefix transformers 5 drops, with one encoder
            oracle = {
                key
                if key.startswith(("text_model.", "text_projection."))
                else f"text_model.{key}": t
                for key, t in oracle.items()
            }
        assert ours.keys() == oracle.keys()
        assert all(torch.equal(ours[key], oracle[key]) for key in ours)


def test_the_model_that_ships_loads() -> None:
    folder = resolve("storybook").path
    for component in components(Checkpoint.open(folder).config):
        state = loaded(folder, component, torch.float16).state_dict()
        assert all(tensor.isfinite().all() for tensor in state.values())


def test_tokenizers_are_found(sd1: TinyModel, sdxl: TinyModel) -> None:
    assert Checkpoint.open(sd1.folder).tokenizers == (sd1.folder / "tokenizer",)
    assert [path.name for path in Checkpoint.open(sdxl.folder).tokenizers] == [
        "tokenizer",
        "tokenizer_2",
    ]


def test_a_model_without_vae_has_no_such_part(sd1: TinyModel, tmp_path: Path) -> None:
    shutil.copytree(sd1.folder, tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": [None, None]}))
    shutil.rmtree(tmp_path / "model" / "vae")
    with pytest.raises(ConfigError, match="U-Net takes 4 channels and gives 4, its pictures 3"):
        Checkpoint.open(tmp_path / "model")
    unet = tmp_path / "model" / "unet" / "config.json"
    channels = {"in_channels": 3, "out_channels": 3}
    unet.write_text(json.dumps(json.loads(unet.read_text()) | channels))
    assert set(Checkpoint.open(tmp_path / "model").tensors) == {"unet", "text_encoder"}


def test_other_formats_are_cast(sd1: TinyModel) -> None:
    module = loaded(sd1.folder, "unet", torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    expected = sd1.pipeline.unet.state_dict()["conv_in.weight"].bfloat16()
    assert torch.equal(module.state_dict()["conv_in.weight"], expected)


def test_writing_to_a_module_leaves_the_file_alone(rewrite: Rewrite) -> None:
    folder = rewrite(UNET, dict)
    before = (folder / UNET).read_bytes()
    module = loaded(folder, "unet")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert (folder / UNET).read_bytes() == before


def test_old_attention_names_stored_as_convolutions(sd1: TinyModel, rewrite: Rewrite) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        aged = {}
        for name, tensor in tensors.items():
            for new_name, old_name in old.items():
                if f".{new_name}." in name:
                    name = name.replace(new_name, old_name)
                    tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
            aged[name] = tensor.contiguous()
        assert aged.keys() != tensors.keys()
        return aged

    state = loaded(rewrite(VAE, age), "vae").state_dict()
    assert torch.equal(state[QUERY], sd1.pipeline.vae.state_dict()[QUERY])


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_as_the_hub_has_them(sd1: TinyModel, rewrite: Rewrite, prefix: str) -> None:
    def publish(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {prefix + k.removeprefix("text_model."): t for k, t in tensors.items()}
        named[f"{prefix}embeddings.position_ids"] = torch.arange(32)[None]
        named["text_projection.weight"] = torch.zeros(32, 32)
        return named

    state = loaded(rewrite(TEXT, publish), "text_encoder").state_dict()
    reference = sd1.pipeline.text_encoder.state_dict()
    for name, tensor in reference.items():
        assert torch.equal(state[f"text_model.{name.removeprefix('text_model.')}"], tensor)


def test_shards(sd1: TinyModel, rewrite: Rewrite) -> None:
    folder = rewrite(UNET, dict)
    tensors = load_file(folder / UNET)
    weight_map = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(weight_map.values()):
        part = {name: t for name, t in tensors.items() if weight_map[name] == shard}
        save_file(part, folder / "unet" / shard)
    (folder / UNET).unlink()
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))

    state = loaded(folder, "unet").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())

    del tensors["conv_in.bias"], weight_map["conv_in.bias"]
    first = {name: t for name, t in tensors.items() if weight_map[name] == "part-1.safetensors"}
    save_file(first, folder / "unet" / "part-1.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if weight_map[n] == "part-0.safetensors"},
        folder / "unet" / "part-0.safetensors",
    )
    with pytest.raises(WeightsError, match=r"model/unet does not fit .* 1 missing \(conv_in\.bias"):
        loaded(folder, "unet")


def test_half_precision_variants(rewrite: Rewrite) -> None:
    folder = rewrite(UNET, dict)
    half = {name: tensor.half() for name, tensor in load_file(folder / UNET).items()}
    save_file(half, folder / UNET.replace(".safetensors", ".fp16.safetensors"))
    (folder / UNET).unlink()
    module = loaded(folder, "unet", torch.float32)
    assert torch.equal(module.state_dict()["conv_in.weight"], half["conv_in.weight"].float())


def test_all_that_does_not_fit_is_named_in_one_line(rewrite: Rewrite) -> None:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for name in [n for n in tensors if n.startswith("time_embedding")]:
            del tensors[name]
        tensors["extra"] = torch.zeros(1)
        tensors["conv_in.weight"] = torch.zeros(32, 9, 3, 3)
        tensors["conv_out.bias"] = torch.zeros(4, dtype=torch.int8)
        return tensors

    with pytest.raises(WeightsError) as caught:
        loaded(rewrite(UNET, spoil), "unet")
    message = str(caught.value)
    assert f"{UNET} does not fit its config:" in message
    assert "4 missing (time_embedding.linear_1.weight" in message
    assert "and 1 more)" in message
    assert "1 unknown (extra)" in message
    assert "conv_in.weight (32, 9, 3, 3) instead of (32, 4, 3, 3)" in message
    assert "1 of an unsupported number format (conv_out.bias I8)" in message
    assert "\n" not in message


def test_no_data_is_read_before_all_fits(rewrite: Rewrite, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = rewrite(UNET, lambda tensors: tensors | {"extra": torch.zeros(1)})

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the data was read")

    monkeypatch.setattr(files, "filled", refuse)
    with pytest.raises(WeightsError, match=r"1 unknown \(extra\)"):
        loaded(folder, "unet")


def test_an_empty_safetensors_file_lacks_everything(rewrite: Rewrite) -> None:
    folder = rewrite(UNET, lambda _: {})
    with pytest.raises(WeightsError, match=r"model/unet does not fit .*: tensors \d+ missing"):
        loaded(folder, "unet")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (UNET, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git-LFS pointer"),
        (VAE, b"", "empty"),
        (TEXT, b"<!doctype html><html></html>", "a web page"),
        (UNET, b"\xff\x00\x00\x00\x00\x00\x00\x00{", "cut off"),
    ],
)
def test_damaged_weights_are_found_on_opening(
    rewrite: Rewrite, file: str, content: bytes, message: str
) -> None:
    folder = rewrite(file, dict)
    (folder / file).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{file} is {message}"):
        Checkpoint.open(folder)


def test_a_component_without_its_config(rewrite: Rewrite) -> None:
    folder = rewrite(UNET, dict)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"unet/config\.json is missing"):
        Checkpoint.open(folder)


def test_opening_does_not_import_torch() -> None:
    code = (
        "import sys; from diffgen.weights.checkpoint import Checkpoint; "
        "from diffgen.weights.finding import resolve; "
        "Checkpoint.open(resolve('storybook').path); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_saved_with_an_adapter_loaded(
    sd1: TinyModel, rewrite: Rewrite, caplog: pytest.LogCaptureFixture
) -> None:
    """PEFT calls the base's layers `base_layer` then, and puts its own tensors beside them."""
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"

    def adapt(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        weight = tensors.pop(f"{layer}.weight")
        rows, columns = weight.shape
        return tensors | {
            f"{layer}.base_layer.weight": weight,
            f"{layer}.lora_A.default.weight": torch.zeros(2, columns),
            f"{layer}.lora_B.default.weight": torch.zeros(rows, 2),
        }

    plain = loaded(sd1.folder, "unet").state_dict()
    ours = loaded(rewrite(UNET, adapt), "unet").state_dict()
    assert all(torch.equal(ours[key], plain[key]) for key in plain)
    assert "saved with an adapter loaded, which is left out: 2 tensors" in caplog.text


def test_of_a_whole_clip_the_half_that_reads_text_is_taken(
    sd1: TinyModel, rewrite: Rewrite
) -> None:
    other = {
        "vision_model.embeddings.class_embedding": torch.zeros(3),
        "visual_projection.weight": torch.zeros(3, 3),
        "text_projection.weight": torch.zeros(3, 3),
        "logit_scale": torch.zeros(()),
    }
    plain = load_file(sd1.folder / "text_encoder" / "model.safetensors")
    folder = rewrite("text_encoder/model.safetensors", lambda tensors: tensors | other)
    found = loaded(folder, "text_encoder").state_dict()
    assert len(found) == len([name for name in plain if "position_ids" not in name])


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model", "text_encoder/model"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "unet.", "a.b."])
def test_a_prefix_of_all_names_means_nothing(
    sd1: TinyModel, rewrite: Rewrite, file: str, prefix: str
) -> None:
    folder = rewrite(f"{file}.safetensors", lambda t: {prefix + key: v for key, v in t.items()})
    component: Component = "unet" if file.startswith("unet") else "text_encoder"
    ours, plain = loaded(folder, component).state_dict(), loaded(sd1.folder, component).state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in ours.items())


def test_another_component_is_called_by_its_name(sd1: TinyModel, rewrite: Rewrite) -> None:
    vae = load_file(sd1.folder / "vae" / "diffusion_pytorch_model.safetensors")
    folder = rewrite("unet/diffusion_pytorch_model.safetensors", lambda _: vae)
    with pytest.raises(WeightsError, match=r"does not fit.*; by their names it is an autoencoder$"):
        loaded(folder, "unet")
