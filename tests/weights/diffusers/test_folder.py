"""diffgen.weights.diffusers.folder: which files of a component folder are its weights."""

import json
from pathlib import Path

import pytest

from diffgen.errors import ConfigError, WeightsError
from diffgen.weights.diffusers.folder import weight_files

STEM = "diffusion_pytorch_model"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"], f"{STEM}.safetensors"),
        ([f"{STEM}.fp16.safetensors", f"{STEM}.non_ema.safetensors"], f"{STEM}.fp16.safetensors"),
        ([f"{STEM}.non_ema.safetensors"], f"{STEM}.non_ema.safetensors"),
        ([f"{STEM}.bin", f"{STEM}.fp16.safetensors"], f"{STEM}.fp16.safetensors"),
    ],
)
def test_the_best_variant_is_chosen(tmp_path: Path, names: list[str], expected: str) -> None:
    touch(tmp_path, *names)
    assert weight_files(tmp_path, "unet") == [tmp_path / expected]


def test_text_encoders_have_a_name_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "model.safetensors", f"{STEM}.safetensors")
    assert weight_files(tmp_path, "text_encoder_2") == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize(
    "index",
    [
        f"{STEM}.safetensors.index.json",
        f"{STEM}.safetensors.index.fp16.json",
        f"{STEM}.fp16.safetensors.index.json",
    ],
)
def test_an_index_names_its_shards(tmp_path: Path, index: str) -> None:
    parts = {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}
    (tmp_path / index).write_text(json.dumps({"weight_map": parts}))
    touch(tmp_path, "1.safetensors", "2.safetensors")
    assert weight_files(tmp_path, "unet") == [
        tmp_path / "1.safetensors",
        tmp_path / "2.safetensors",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "../../secret.safetensors",
        "/etc/passwd",
        "..\\\\other.safetensors",
        f"{STEM}.safetensors.index.json",
        "model.bin",
        "x" * 10_000 + ".safetensors",
        "\x00.safetensors",
        "",
        ".safetensors",
        7,
        None,
        ["1.safetensors"],
    ],
)
def test_an_index_names_files_beside_it_and_no_others(tmp_path: Path, name: object) -> None:
    index = tmp_path / "unet" / f"{STEM}.safetensors.index.json"
    index.parent.mkdir()
    (tmp_path / "other.safetensors").touch()
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": name}}))
    with pytest.raises(
        ConfigError, match=r"should name \.safetensors files beside it, not"
    ) as caught:
        weight_files(tmp_path / "unet", "unet")
    assert str(index) in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("weight_map", [[], {}, None, 7, ["1.safetensors"]])
def test_an_index_of_another_form(tmp_path: Path, weight_map: object) -> None:
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ConfigError, match='"weight_map" should'):
        weight_files(tmp_path, "unet")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    parts = {"a": "1.safetensors", "b": "2.safetensors"}
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    touch(tmp_path, "1.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 2\.safetensors, 1 of the 2 parts"):
        weight_files(tmp_path, "unet")


def test_an_index_without_a_map(tmp_path: Path) -> None:
    (tmp_path / f"{STEM}.safetensors.index.json").write_text('{"metadata": {}}')
    with pytest.raises(ConfigError, match=r'index\.json: "weight_map" should name'):
        weight_files(tmp_path, "unet")


def test_only_pickles(tmp_path: Path) -> None:
    touch(tmp_path, "config.json", f"{STEM}.bin")
    with pytest.raises(WeightsError, match=rf"{STEM}\.bin is a pickle, which can run any code"):
        weight_files(tmp_path, "unet")


def test_nothing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"has no weights: expected {STEM}\.safetensors"):
        weight_files(tmp_path, "vae")


def test_the_only_file_of_another_name_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "diffusion_pytorch_model.fp8.safetensors"
    file.touch()
    assert weight_files(tmp_path, "unet") == [file]
    assert f"{file}: the only weights there, which are taken" in caplog.text
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(WeightsError, match="has no weights: expected"):
        weight_files(tmp_path, "unet")


def test_parts_without_their_index_are_named(tmp_path: Path) -> None:
    (tmp_path / f"{STEM}-00001-of-00002.safetensors").touch()
    with pytest.raises(WeightsError, match=r"weights in parts, but not the \.index\.json"):
        weight_files(tmp_path, "unet")
