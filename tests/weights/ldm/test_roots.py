"""diffgen.weights.ldm.roots: prefixes and names that whole models and U-Nets alone come under."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from single_files import make_pipeline, single_file_tensors, write_single_file
from torch import Tensor

from diffgen.errors import UnsupportedCheckpoint
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.contents import contents_of
from diffgen.weights.ldm.roots import rooted
from diffgen.weights.ldm.single_file import open_single_file

Tensors: TypeAlias = dict[str, Tensor]
Change: TypeAlias = Callable[[DiffusionPipeline, Tensors], Tensors]
UNET = "model.diffusion_model."
SECOND = "conditioner.embedders.1."
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def pipelines() -> dict[str, DiffusionPipeline]:
    return {family: make_pipeline(family) for family in ("sd1", "sdxl")}


@pytest.fixture(scope="module")
def files(
    pipelines: dict[str, DiffusionPipeline], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("plain")
    return {f: write_single_file(place / f"{f}.safetensors", p, f) for f, p in pipelines.items()}


def renamed(*pairs: tuple[str, str]) -> Change:
    def change(_: DiffusionPipeline, tensors: Tensors) -> Tensors:
        found = {}
        for key, tensor in tensors.items():
            for old, new in pairs:
                key = re.sub(old, new, key)
            found[key] = tensor
        return found

    return change


def of_pipeline(pipeline: DiffusionPipeline) -> Iterator[tuple[str, Tensors]]:
    for name in PARTS:
        if module := getattr(pipeline, name, None):
            yield name, module.state_dict()


def in_diffusers_names(pipeline: DiffusionPipeline, _: Tensors) -> Tensors:
    return {f"{name}.{key}": t for name, state in of_pipeline(pipeline) for key, t in state.items()}


def with_transformers_second(pipeline: DiffusionPipeline, tensors: Tensors) -> Tensors:
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(SECOND)}
    state = pipeline.text_encoder_2.state_dict()
    return kept | {f"{SECOND}transformer.{key}": tensor for key, tensor in state.items()}


def averages_alone(_: DiffusionPipeline, tensors: Tensors) -> Tensors:
    found = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(5)}
    for key, tensor in tensors.items():
        inside = key.startswith(UNET)
        short = key.removeprefix("model.").replace(".", "")
        found[f"model_ema.{short}" if inside else key] = tensor
    return found


def unet_alone(prefix: str) -> Change:
    def change(_: DiffusionPipeline, tensors: Tensors) -> Tensors:
        return {prefix + k.removeprefix(UNET): t for k, t in tensors.items() if k.startswith(UNET)}

    return change


def write(path: Path, tensors: Tensors) -> Path:
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, path)
    return path


def assert_same(found: Checkpoint, plain: Checkpoint) -> None:
    assert found.config == plain.config
    assert found.tensors.keys() == plain.tensors.keys()
    for part, tensors in plain.tensors.items():
        ours, theirs = found.tensors[part], dict(tensors.read(tensors))
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


WHOLE = {
    "module.": ("sd1", renamed(("^", "module."))),
    "state_dict.": ("sdxl", renamed(("^", "state_dict."))),
    "torch.compile": ("sd1", renamed((r"diffusion_model\.", "diffusion_model._orig_mod."))),
    "model. twice": ("sd1", renamed(("^model", "model.model"))),
    "ComfyUI's encoder": ("sd1", renamed(("^cond_stage_model", "text_encoders.clip_l"))),
    "sd.cpp's encoder": ("sd1", renamed((r"^cond_stage_model\.transformer", "te"))),
    "diffusers 1": ("sd1", in_diffusers_names),
    "diffusers XL": ("sdxl", in_diffusers_names),
    "transformers' second encoder": ("sdxl", with_transformers_second),
    "averages of 1": ("sd1", averages_alone),
    "averages of XL": ("sdxl", averages_alone),
}


@pytest.mark.parametrize("spelling", WHOLE)
def test_whole_models(
    spelling: str,
    pipelines: dict[str, DiffusionPipeline],
    files: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    family, change = WHOLE[spelling]
    tensors = change(pipelines[family], single_file_tensors(pipelines[family], family))
    file = write(tmp_path / "x.safetensors", tensors)
    assert_same(Checkpoint.open(file), Checkpoint.open(files[family]))
    assert contents_of({key: tuple(t.shape) for key, t in tensors.items()}).holds == "model"
    said = f"{file} has its U-Net's averaged weights (EMA) alone, which are used"
    assert [record.message for record in caplog.records] == [said] * spelling.startswith("averages")


@pytest.mark.parametrize(
    "prefix", ["", "diffusion_model.", "unet.", "module.", "model.", "model.diffusion_model."]
)
def test_unets_alone(
    prefix: str, pipelines: dict[str, DiffusionPipeline], files: dict[str, Path], tmp_path: Path
) -> None:
    tensors = single_file_tensors(pipelines["sdxl"], "sdxl")
    file = write(tmp_path / "x.safetensors", unet_alone(prefix)(pipelines["sdxl"], tensors))
    assert_same(Checkpoint.open(file, base=files["sdxl"]), Checkpoint.open(files["sdxl"]))


def test_averages_beside_the_weights_are_left_out(
    pipelines: dict[str, DiffusionPipeline], tmp_path: Path
) -> None:
    tensors = single_file_tensors(pipelines["sd1"], "sd1")
    both = tensors | {k: t + 1 for k, t in averages_alone(pipelines["sd1"], tensors).items()}
    file = write(tmp_path / "x.safetensors", both | tensors)
    found = open_single_file(file).tensors["unet"]["conv_in.weight"]
    assert torch.equal(found, tensors[f"{UNET}input_blocks.0.0.weight"])


def test_encoders_of_both_spellings_are_not_mixed() -> None:
    names = ["cond_stage_model.transformer.x", "text_encoder.x"]
    assert list(rooted(dict.fromkeys(names, 0))) == names


def test_projections_of_an_unknown_side_are_refused(
    pipelines: dict[str, DiffusionPipeline], tmp_path: Path
) -> None:
    pipeline = pipelines["sdxl"]
    tensors = with_transformers_second(pipeline, single_file_tensors(pipeline, "sdxl"))
    names = renamed((r"^conditioner\.embedders\.1", "cond_stage_model.1"))
    change = renamed((r"^conditioner\.embedders\.0", "cond_stage_model"))
    file = write(tmp_path / "x.safetensors", change(pipeline, names(pipeline, tensors)))
    with pytest.raises(UnsupportedCheckpoint, match=r"second text encoder has stable-diffusion\.c"):
        open_single_file(file)
