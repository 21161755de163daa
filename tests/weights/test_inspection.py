"""diffgen.weights.inspection, contents, lora_notes and spread: files known by their headers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import write_gguf
from safetensors.torch import load_file, save_file

from diffgen.errors import UsageError, WeightsError
from diffgen.weights.contents import Contents, contents_of
from diffgen.weights.files import read_header
from diffgen.weights.inspection import inspect
from diffgen.weights.lora_notes import lora_notes
from diffgen.weights.spread import spread


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of three families, each in one file."""
    import single_files

    folder = tmp_path_factory.mktemp("files")
    return {
        family: single_files.write_single_file(
            folder / f"{family}.safetensors", single_files.make_pipeline(family), family
        )
        for family in ("sd1", "sd2", "sdxl")
    }


@pytest.mark.parametrize(
    ("family", "layout", "prediction", "parts"),
    [
        ("sd1", "LDM", "eps", ["unet", "vae", "text_encoder"]),
        ("sd2", "LDM", "v", ["unet", "vae", "text_encoder", "not read"]),
        ("sdxl", "SGM", "eps", ["unet", "vae", "text_encoder", "text_encoder_2", "not read"]),
    ],
)
def test_a_model_in_one_file(
    files: dict[str, Path], family: str, layout: str, prediction: str, parts: list[str]
) -> None:
    report = inspect(str(files[family]), check=True)
    assert (report.holds, report.family, report.layout) == ("model", family, layout)
    assert report.settings["prediction"] == prediction
    assert [component.name for component in report.components] == parts
    total = sum(t.numel() for t in load_file(files[family]).values())
    assert sum(component.parameters for component in report.components) == total
    assert any(note.startswith(f"prediction is {prediction}") for note in report.notes)
    assert report.trouble is None
    assert report.fit is not None
    assert all(not (fit.missing or fit.unexpected) for fit in report.fit.values())


def test_tensors_that_are_missing_or_too_many_are_named(
    files: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_file(files["sd1"])
    del tensors["model.diffusion_model.out.0.bias"]
    tensors["model.diffusion_model.stray"] = torch.zeros(3)
    tensors["model.diffusion_model.out.0.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "odd.safetensors")
    fit = inspect(str(tmp_path / "odd.safetensors"), check=True).fit
    assert fit is not None
    assert fit["unet"].missing == ("conv_norm_out.bias",)
    assert fit["unet"].unexpected == ("stray",)
    assert fit["unet"].of_another_shape == ("conv_norm_out.weight (3,) instead of (64,)",)


def test_a_folder_says_whose_scheduler_told(sd2: Any) -> None:
    report = inspect(str(sd2.folder), hashes=True)
    assert report.layout == "diffusers folder"
    assert "prediction is v, by the folder's scheduler" in report.notes
    assert report.sha256 is not None
    assert set(report.sha256) == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    assert all(len(digits) == 64 for digits in report.sha256.values())


def test_metadata_are_told_and_counted_as_evidence(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    save_file(load_file(files["sd1"]), path, {"modelspec.prediction_type": "v"})
    report = inspect(str(path))
    assert report.metadata == {"modelspec.prediction_type": "v"}
    assert report.settings["prediction"] == "v"
    assert "prediction is v, by the file's modelspec.prediction_type" in report.notes


def test_a_model_that_cannot_be_used_is_described_all_the_same(
    files: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_file(files["sd1"])
    without = {k: t for k, t in tensors.items() if not k.startswith("first_stage_model.")}
    save_file(without, tmp_path / "no-vae.safetensors")
    report = inspect(str(tmp_path / "no-vae.safetensors"))
    assert (report.holds, report.settings) == ("model", {})
    assert "no autoencoder" in str(report.trouble)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git-LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"\x00\x01", r"is cut off after 2 bytes"),
        ((1000).to_bytes(8, "little") + b"{}", r"has 10 of at least 1008 bytes"),
        (b"", "is empty"),
    ],
)
def test_broken_files_are_named_for_what_they_are(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        inspect(str(path))


def test_a_gguf_file_is_named_with_its_formats(tmp_path: Path) -> None:
    write_gguf(tmp_path / "unet.gguf")
    report = inspect(str(tmp_path / "unet.gguf"))
    assert (report.holds, report.family) == ("unet", "sd1")
    assert report.components[0].dtypes == {"Q8_0": 1}
    assert report.metadata["general.architecture"] == "sd1"


def test_nothing_to_inspect(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no model named "nothing"'):
        inspect("nothing")
    with pytest.raises(UsageError, match=r"neither a model_index\.json nor a \.safetensors file"):
        inspect(str(tmp_path))


ATTN2 = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
LDM_ATTN2 = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({LDM_ATTN2: (320, 768), "cond_stage_model.x": (1,)}, ("model", "sd1", "LDM")),
        ({LDM_ATTN2: (320, 1024), "first_stage_model.x": (1,)}, ("unet", "sd2", "LDM")),
        ({LDM_ATTN2: (640, 2048), "conditioner.embedders.1.x": (1,)}, ("model", "sdxl", "SGM")),
        ({f"{ATTN2}.weight": (320, 768)}, ("unet", "sd1", "diffusers")),
        ({"encoder.conv_in.weight": (1,)}, ("vae", None, "diffusers")),
        ({"first_stage_model.encoder.down.0.x": (1,)}, ("vae", None, "LDM")),
        ({"1.weight": (64, 4, 3, 3), "3.conv.0.bias": (64,)}, ("decoder", None, None)),
        ({"decoder.layers.0.weight": (64, 4, 3, 3)}, ("decoder", None, None)),
        ({"text_model.embeddings.x": (1,)}, ("text encoder", None, None)),
        ({"emb_params": (4, 768)}, ("embedding", "sd1", None)),
        ({"<cat>": (2, 1024)}, ("embedding", "sd2", None)),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, ("embedding", "sdxl", None)),
        ({f"unet.{ATTN2}.lora_A.weight": (4, 2048)}, ("lora", "sdxl", "diffusers")),
        (
            {f"lora_unet_{ATTN2.replace('.', '_')}.lora_down.weight": (4, 1024)},
            ("lora", "sd2", "kohya"),
        ),
    ],
)
def test_what_a_file_holds(tensors: dict[str, Any], expected: tuple[str, Any, Any]) -> None:
    assert contents_of(tensors) == Contents(*expected)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("model.diffusion_model.joint_blocks.0.x", "Stable Diffusion 3"),
    ],
)
def test_families_of_others_are_named(key: str, name: str) -> None:
    found = contents_of({key: (1, 2, 3), "single_blocks.0.x": (1,)})
    assert (found.holds, found.named) == ("unknown", name)


@pytest.mark.parametrize(
    ("suffix", "shape", "kind"),
    [
        ("lora_down.weight", (4, 8), "LoRA"),
        ("lora_down.weight", (4, 8, 3, 3), "LoCon"),
        ("lora_mid.weight", (4, 4, 3, 3), "LoCon, Tucker"),
        ("hada_w1_a", (4, 8), "LoHa"),
        ("lokr_w1", (4, 8), "LoKr"),
        ("dora_scale", (1, 8), "DoRA"),
        ("oft_blocks", (4, 8, 8), "OFT"),
        ("diff", (4, 8), "full difference"),
    ],
)
def test_kinds_of_adapters(tmp_path: Path, suffix: str, shape: tuple[int, ...], kind: str) -> None:
    save_file({f"lora_unet_x.{suffix}": torch.zeros(shape)}, tmp_path / "a.safetensors")
    infos = read_header(tmp_path / "a.safetensors")
    assert lora_notes(infos, {})["kind"] == kind


def test_what_a_trainer_noted_of_a_lora(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_a.lora_down.weight": torch.zeros(8, 4),
        "lora_unet_a.lora_up.weight": torch.zeros(4, 8),
        "lora_te_b.lora_down.weight": torch.zeros(2, 4),
    }
    noted = {
        "ss_sd_model_name": "base.safetensors",
        "ss_output_name": "cut",
        "ss_tag_frequency": json.dumps({"10_a": {"paper": 3, "cut": 9}, "b": {"paper": 7}}),
    }
    save_file(tensors, tmp_path / "a.safetensors", noted)
    adapter = inspect(str(tmp_path / "a.safetensors")).adapter
    assert (adapter["unet_layers"], adapter["text_layers"]) == (1, 1)
    assert adapter["ranks"] == [8, 2]
    assert (adapter["base"], adapter["title"]) == ("base.safetensors", "cut")
    assert adapter["tags"] == ["paper", "cut"]


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"a": 3}', '{"a": {"b": "c"}}', "{"])
def test_tags_of_others_cannot_break_anything(tmp_path: Path, text: str) -> None:
    save_file({"lora_unet_x.alpha": torch.zeros(1)}, tmp_path / "a.safetensors")
    infos = read_header(tmp_path / "a.safetensors")
    assert "tags" not in lora_notes(infos, {"ss_tag_frequency": text})


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn],
)
def test_the_spread_is_that_of_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensor = (0.09 * torch.randn(640)).to(dtype)
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    found = spread(read_header(tmp_path / "x.safetensors")["x"])
    assert math.isclose(found, float(tensor.float().std()), rel_tol=1e-5)
