"""diffgen.weights.convert and what it is made of: layouts, formats, merging, and reading back.

Oracles: diffusers opens what is written; the tensors of `single_files`, which is checked against
diffusers' own converters, are what a single file should hold.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from gguf_files import NAME, write_gguf
from safetensors.torch import load_file, save_file

from diffgen.errors import OutputError, UnsupportedCheckpoint, UsageError, WeightsError
from diffgen.models.lora import LoraDelta
from diffgen.models.shapes import expected_shapes
from diffgen.types import LoraRef
from diffgen.weights import verifying
from diffgen.weights.adapters.lora import save_lora
from diffgen.weights.checkpoint import Checkpoint, components
from diffgen.weights.convert import Conversion, Converted, convert
from diffgen.weights.diffusers.configs import read_model_config
from diffgen.weights.diffusers.copying import copy_vocabulary
from diffgen.weights.files import Place, TensorInfo, read_header, read_metadata
from diffgen.weights.keymap import TEXT_RULES, to_canonical
from diffgen.weights.ldm.names import canonical_vae, open_clip_rules, unet_rules
from diffgen.weights.ldm.writing import single_file_parts
from diffgen.weights.writing import Part, write_parts

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
FAMILIES = ("sd1", "sd2", "sdxl")


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    import single_files

    return {family: single_files.make_pipeline(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, pipelines: dict[str, Any]) -> dict[str, Path]:
    import single_files

    folder = tmp_path_factory.mktemp("files")
    return {
        family: single_files.write_single_file(folder / f"{family}.safetensors", pipeline, family)
        for family, pipeline in pipelines.items()
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> dict[str, Path]:
    """The same models, converted to folders."""
    place = tmp_path_factory.mktemp("folders")
    return {family: run(path, place / family).path for family, path in files.items()}


def run(source: Path | str, target: Path, **options: Any) -> Converted:
    return convert(Conversion(source=str(source), target=target, **options), lambda *_: None)


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_opens_the_folder_of_a_file(
    folders: dict[str, Path], pipelines: dict[str, Any], family: str
) -> None:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    found = kind.from_pretrained(folders[family], local_files_only=True)
    names = ["unet", "vae", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])]
    for name in names:
        ours = getattr(found, name).state_dict()
        theirs = getattr(pipelines[family], name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (
        found.tokenizer("red barn").input_ids == pipelines[family].tokenizer("red barn").input_ids
    )
    assert found.tokenizer.pad_token == pipelines[family].tokenizer.pad_token
    assert found.scheduler.config.prediction_type == (
        pipelines[family].scheduler.config.prediction_type
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_comes_back_from_its_folder_as_it_was(
    folders: dict[str, Path], files: dict[str, Path], family: str, tmp_path: Path
) -> None:
    path = run(folders[family], tmp_path / "back.safetensors").path
    before, after = load_file(files[family]), load_file(path)
    unused = {key for key in before if key.endswith("logit_scale") or ".resblocks.3." in key}
    assert after.keys() == before.keys() - unused
    assert all(torch.equal(after[key], before[key]) for key in after)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_opens_the_single_file(
    folders: dict[str, Path], pipelines: dict[str, Any], family: str, tmp_path: Path
) -> None:
    path = run(folders[family], tmp_path / "one.safetensors").path
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    found = kind.from_single_file(str(path), config=str(folders[family]), local_files_only=True)
    # diffusers 0.42 leaves the second encoder of any such file on the meta device (transformers 5).
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = (getattr(p, name).state_dict() for p in (found, pipelines[family]))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_names_of_whole_models_are_read_as_they_are_written(family: str) -> None:
    """The real models' configs: every tensor, both ways, without any weights."""
    config = read_model_config(CONFIGS / family)
    expected = {part: expected_shapes(config, part) for part in components(config)}
    made = {
        part: {name: Part(shape, "F32", lambda: torch.zeros(0)) for name, shape in names.items()}
        for part, names in expected.items()
    }
    infos = {
        name: TensorInfo(Path("f"), name, part.shape, "F32", Place(0, part.shape, (), "F32"))
        for name, part in single_file_parts(config, made).items()
    }

    def below(prefix: str) -> dict[str, TensorInfo]:
        return {k.removeprefix(prefix): i for k, i in infos.items() if k.startswith(prefix)}

    clip = (
        "conditioner.embedders.0.transformer." if config.is_xl else "cond_stage_model.transformer."
    )
    open_clip = "conditioner.embedders.1.model." if config.is_xl else "cond_stage_model.model."
    found = {
        "unet": to_canonical(below("model.diffusion_model."), unet_rules(config.unet)),
        "vae": canonical_vae(below("first_stage_model.")),
    }
    if family != "sd21":
        found["text_encoder"] = to_canonical(below(clip), TEXT_RULES)
    if family != "sd15":
        last = config.text[-1]
        name = "text_encoder_2" if config.is_xl else "text_encoder"
        found[name] = to_canonical(below(open_clip), open_clip_rules(last.layers))
    assert {n: {k: i.shape for k, i in part.items()} for n, part in found.items()} == expected


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)],
)
def test_number_formats(
    files: dict[str, Path], tmp_path: Path, dtype: Any, stored: torch.dtype
) -> None:
    before = load_file(files["sd1"])
    after = load_file(run(files["sd1"], tmp_path / "x.safetensors", dtype=dtype).path)
    assert all(torch.equal(after[key], before[key].to(stored)) for key in after)


def test_8_bits_are_for_matrices_of_the_unet(files: dict[str, Path], tmp_path: Path) -> None:
    path = run(files["sd1"], tmp_path / "x.safetensors", dtype="fp8").path
    for key, info in read_header(path).items():
        matrix = key.startswith("model.diffusion_model.") and len(info.shape) > 1
        assert info.dtype == ("F8_E4M3" if matrix else "F16"), key
    assert Checkpoint.open(path).config.unet == Checkpoint.open(files["sd1"]).config.unet


def test_what_overflows_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    tensors = load_file(files["sd1"])
    key = "model.diffusion_model.out.2.bias"
    for value, message in ((1e6, "overflows in F16; take --dtype bf16"), (torch.nan, "not finite")):
        tensors[key][0] = value
        save_file(tensors, tmp_path / "odd.safetensors")
        with pytest.raises(WeightsError, match=message):
            run(tmp_path / "odd.safetensors", tmp_path / "x.safetensors", dtype="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["odd.safetensors"]


@pytest.fixture
def lora(tmp_path: Path, files: dict[str, Path]) -> Path:
    checkpoint = Checkpoint.open(files["sd1"])
    torch.manual_seed(5)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    out, into = checkpoint.tensors["unet"].infos[f"{name}.weight"].shape
    delta = LoraDelta(torch.randn(2, into), torch.randn(out, 2), 1.0)
    save_lora(
        tmp_path / "lora.safetensors",
        {"unet": {name: delta}},
        checkpoint.config,
        layout="kohya",
        dtype=torch.float32,
        metadata={},
    )
    return tmp_path / "lora.safetensors"


def test_a_lora_is_merged(files: dict[str, Path], lora: Path, tmp_path: Path) -> None:
    path = run(files["sd1"], tmp_path / "x.safetensors", loras=(LoraRef(lora, 0.5),)).path
    before, after, parts = load_file(files["sd1"]), load_file(path), load_file(lora)
    (down,) = (t for key, t in parts.items() if ".lora_down." in key)
    (up,) = (t for key, t in parts.items() if ".lora_up." in key)
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    torch.testing.assert_close(after[key], before[key] + 0.5 * 0.5 * up @ down)
    others = [each for each in after if each != key]
    assert all(torch.equal(after[each], before[each]) for each in others)
    assert read_metadata(path)["modelspec.merged_from"] == "sd1, lora (0.5)"


def test_a_lora_for_some_steps_cannot_be_merged(files: dict[str, Path], tmp_path: Path) -> None:
    lora = LoraRef(tmp_path / "l.safetensors", steps=(0.0, 0.5))
    with pytest.raises(UsageError, match="for a part of the steps it cannot be merged"):
        run(files["sd1"], tmp_path / "x.safetensors", loras=(lora,))


def test_an_autoencoder_is_put_in(
    files: dict[str, Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    other = {
        key.removeprefix("first_stage_model."): 2 * tensor
        for key, tensor in load_file(files["sd1"]).items()
        if key.startswith("first_stage_model.")
    }
    save_file(other, tmp_path / "vae.safetensors")
    for target in (tmp_path / "x.safetensors", tmp_path / "folder"):
        run(folders["sd1"], target, vae=tmp_path / "vae.safetensors")
        made = Checkpoint.open(target).tensors["vae"]["decoder.conv_in.weight"]
        assert torch.equal(made, other["decoder.conv_in.weight"])


def with_averages(path: Path, target: Path) -> Path:
    tensors = load_file(path)
    unet = {key: t for key, t in tensors.items() if key.startswith("model.diffusion_model.")}
    averages = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): tensor + 1
        for key, tensor in unet.items()
    }
    save_file(tensors | averages | {"model_ema.decay": torch.tensor(0.99)}, target)
    return target


def test_averaged_weights(files: dict[str, Path], tmp_path: Path) -> None:
    source = with_averages(files["sd1"], tmp_path / "both.safetensors")
    plain = load_file(files["sd1"])
    key, average = "model.diffusion_model.out.2.bias", "model_ema.diffusion_modelout2bias"
    dropped = load_file(run(source, tmp_path / "drop.safetensors").path)
    assert torch.equal(dropped[key], plain[key])
    assert average not in dropped
    used = load_file(run(source, tmp_path / "use.safetensors", ema="use").path)
    assert torch.equal(used[key], plain[key] + 1)
    assert average not in used
    kept = load_file(run(source, tmp_path / "keep.safetensors", ema="keep").path)
    assert torch.equal(kept[key], plain[key])
    assert torch.equal(kept[average], plain[key] + 1)
    for ema in ("use", "keep"):
        with pytest.raises(UsageError, match="has no averaged weights"):
            run(files["sd1"], tmp_path / "none.safetensors", ema=ema)
    with pytest.raises(UsageError, match="a model folder has no place for averaged weights"):
        run(source, tmp_path / "folder", ema="keep")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_file_says_of_itself(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    metadata = read_metadata(run(folders[family], tmp_path / "x.safetensors").path)
    architecture, prediction = {
        "sd1": ("stable-diffusion-v1", "epsilon"),
        "sd2": ("stable-diffusion-v2-768-v", "v"),
        "sdxl": ("stable-diffusion-xl-v1-base", "epsilon"),
    }[family]
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["modelspec.prediction_type"] == prediction
    assert metadata["modelspec.title"] == family


def test_v_prediction_and_zero_snr_go_along(folders: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    source = tmp_path / "v"
    shutil.copytree(folders["sdxl"], source)
    file = source / "scheduler" / "scheduler_config.json"
    told = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    path = run(source, tmp_path / "v.safetensors").path
    assert {"v_pred", "ztsnr"} <= read_header(path).keys()
    schedule = Checkpoint.open(path).config.schedule
    assert (schedule.prediction, schedule.zero_snr) == ("v", True)
    again = Checkpoint.open(run(path, tmp_path / "again").path).config.schedule
    assert (again.prediction, again.zero_snr) == ("v", True)


def test_metadata_of_the_source_are_kept(files: dict[str, Path], tmp_path: Path) -> None:
    old = {"modelspec.author": "me", "modelspec.title": "Mine", "modelspec.hash_sha256": "0x1"}
    save_file(load_file(files["sd1"]), tmp_path / "a.safetensors", old)
    found = read_metadata(run(tmp_path / "a.safetensors", tmp_path / "b.safetensors").path)
    assert (found["modelspec.author"], found["modelspec.title"]) == ("me", "Mine")
    assert "modelspec.hash_sha256" not in found


def test_what_one_file_cannot_say_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    import json
    import shutil

    with pytest.raises(UnsupportedCheckpoint, match="has another vocabulary than CLIP's"):
        run("storybook", tmp_path / "x.safetensors")
    shutil.copytree(folders["sd1"], tmp_path / "odd")
    file = tmp_path / "odd" / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": 0.5}))
    with pytest.raises(UnsupportedCheckpoint, match=r"vae\.scaling_factor 0\.5 would be read as"):
        run(tmp_path / "odd", tmp_path / "x.safetensors")
    file = tmp_path / "odd" / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 49409}))
    with pytest.raises(UnsupportedCheckpoint, match="knows 1 tokens beyond CLIP's vocabulary"):
        run(tmp_path / "odd", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_vocabularies_are_copied_with_their_added_tokens(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (tmp_path / "a" / name).write_text("{}")
    copy_vocabulary(tmp_path / "a", tmp_path / "b", max_tokens=77)
    assert (tmp_path / "b" / "added_tokens.json").exists()


@pytest.mark.parametrize("target", ["x.safetensors", "folder"])
def test_what_does_not_read_back_is_not_put_in_place(
    files: dict[str, Path], tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(path: Path, parts: dict[str, Part], *rest: Any, **more: Any) -> None:
        write_parts(path, parts, *rest, **more)
        with path.open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"?")

    monkeypatch.setattr("diffgen.weights.convert.write_parts", damaged)
    monkeypatch.setattr("diffgen.weights.remaking.write_parts", damaged)
    with pytest.raises(WeightsError, match="does not read back as it was written"):
        run(files["sd1"], tmp_path / target)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_on_request_only(files: dict[str, Path], tmp_path: Path) -> None:
    for target in (tmp_path / "x.safetensors", tmp_path / "folder"):
        run(files["sd1"], target)
        with pytest.raises(UsageError, match="is there already; --overwrite replaces it"):
            run(files["sd1"], target)
        run(files["sd1"], target, overwrite=True, dtype="fp16")
        infos = Checkpoint.open(target).tensors["unet"].infos.values()
        assert {info.dtype for info in infos} == {"F16"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x.safetensors"]


def test_targets_that_cannot_be(files: dict[str, Path], tmp_path: Path) -> None:
    source = files["sd1"]
    with pytest.raises(UsageError, match=r"\.ckpt files are not written"):
        run(source, tmp_path / "x.ckpt")
    with pytest.raises(UsageError, match="is what is to be converted"):
        run(source, source, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, which is not what"):
        run(source, tmp_path / "file", overwrite=True)
    with pytest.raises(OutputError, match="cannot write"):
        run(source, tmp_path / "file" / "x.safetensors")


def test_parts_of_models_keep_their_names(
    files: dict[str, Path], lora: Path, tmp_path: Path
) -> None:
    path = run(lora, tmp_path / "half.safetensors", dtype="fp16").path
    before, after = load_file(lora), load_file(path)
    assert all(torch.equal(after[key], before[key].half()) for key in before)
    with pytest.raises(UsageError, match=r"is no whole model; name a \.safetensors file to write"):
        run(lora, tmp_path / "folder")
    with pytest.raises(UsageError, match="--ema are for those"):
        run(lora, tmp_path / "x.safetensors", ema="use")


def test_a_unet_alone_becomes_whole_with_a_base(
    files: dict[str, Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_file(files["sd1"])
    unet = {k: 2 * t for k, t in tensors.items() if k.startswith("model.diffusion_model.")}
    save_file(unet, tmp_path / "unet.safetensors")
    for base in (files["sd1"], folders["sd1"]):
        for target in ("x.safetensors", "folder"):
            path = run(tmp_path / "unet.safetensors", tmp_path / target, base=base, overwrite=True)
            made = Checkpoint.open(path.path).tensors
            assert torch.equal(
                made["unet"]["conv_out.bias"], unet["model.diffusion_model.out.2.bias"]
            )
            assert set(made) == {"unet", "vae", "text_encoder"}
    alone = run(tmp_path / "unet.safetensors", tmp_path / "half.safetensors", dtype="fp16").path
    assert load_file(alone).keys() == unet.keys()


def test_a_gguf_file_becomes_safetensors(tmp_path: Path) -> None:
    wanted = write_gguf(tmp_path / "unet.gguf")
    path = run(tmp_path / "unet.gguf", tmp_path / "x.safetensors").path
    torch.testing.assert_close(load_file(path)[NAME], torch.tensor(wanted).half())
    assert read_metadata(path) == {}


@pytest.mark.parametrize(("prediction", "mark"), [("flow", None), ("edm", "edm_mean")])
def test_other_noise_goes_along_in_files(
    files: dict[str, Path], tmp_path: Path, prediction: str, mark: str | None
) -> None:
    tensors = load_file(files["sdxl"])
    if mark:
        tensors |= {mark: torch.zeros(1, 4, 1, 1), "edm_std": torch.ones(1, 4, 1, 1)}
    told = {} if mark else {"modelspec.prediction_type": prediction, "ss_flow_shift": "2.5"}
    save_file(tensors, tmp_path / "a.safetensors", told)
    path = run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="fp16").path
    before, after = (Checkpoint.open(tmp_path / n).config for n in ("a.safetensors", path.name))
    assert after.schedule.prediction == before.schedule.prediction == prediction
    assert after.schedule.shift == before.schedule.shift == (3.0 if mark else 2.5)
    assert mark or read_metadata(path)["ss_discrete_flow_shift"] == "2.5"
    with pytest.raises(UnsupportedCheckpoint, match=r"other noise .* name a \.safetensors file"):
        run(tmp_path / "a.safetensors", tmp_path / "folder")


def test_a_pickle_of_tensors_is_converted(files: dict[str, Path], tmp_path: Path) -> None:
    tensors = load_file(files["sd1"])
    torch.save({"state_dict": tensors, "global_step": 7, "lr": 1e-4}, tmp_path / "old.ckpt")
    path = run(tmp_path / "old.ckpt", tmp_path / "new.safetensors").path
    after = load_file(path)
    assert after.keys() == tensors.keys()
    assert all(torch.equal(after[key], tensors[key]) for key in tensors)
    assert read_metadata(path)["modelspec.title"] == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.safetensors", "old.ckpt"]


def test_a_pickled_embedding_is_converted(tmp_path: Path) -> None:
    vectors = torch.randn(2, 768)
    torch.save({"string_to_param": {"*": vectors}, "name": "cat"}, tmp_path / "cat.pt")
    path = run(tmp_path / "cat.pt", tmp_path / "cat.safetensors").path
    assert torch.equal(load_file(path)["string_to_param.*"], vectors)


class Evil:
    """Unpickled by anybody else, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_a_pickle_that_calls_the_system_runs_nothing(tmp_path: Path, suffix: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / f"evil{suffix}"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "b": Evil(mark)}, path)
    with pytest.raises(WeightsError, match="holds more than tensors, which could run code"):
        run(path, tmp_path / "x.safetensors")
    path.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(WeightsError, match=r"could run code|no file of PyTorch's"):
        run(path, tmp_path / "x.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    pickle.loads(pickle.dumps(Evil(mark)))  # it would have
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x80\x02}q\x00.", b"text"])
def test_damaged_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.ckpt"):
        run(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == ["x.ckpt"]


def test_the_writer_writes_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5).half(),
        "a": torch.arange(4),
        "none": torch.zeros(0, 3),
        "one": torch.tensor(2.5),
        "é": torch.randn(2).to(torch.float8_e4m3fn),
    }
    formats = {"b": "F16", "a": "I64", "none": "F32", "one": "F32", "é": "F8_E4M3"}

    def make(name: str) -> Part:
        return Part(tuple(tensors[name].shape), formats[name], lambda: tensors[name])

    write_parts(tmp_path / "x", {n: make(n) for n in tensors}, {"k": "v"}, step=lambda: None)
    found = load_file(tmp_path / "x")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(verifying._bytes(found[n]), verifying._bytes(tensors[n])) for n in found)
    assert read_metadata(tmp_path / "x") == {"k": "v"}


def test_a_table_of_noise_goes_along(files: dict[str, Path], tmp_path: Path) -> None:
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    table = {"alphas_cumprod": (1 - betas).cumprod(0).float()}
    save_file(load_file(files["sd1"]) | table, tmp_path / "a.safetensors")
    path = run(tmp_path / "a.safetensors", tmp_path / "b.safetensors").path
    assert torch.equal(load_file(path)["alphas_cumprod"], table["alphas_cumprod"])


def test_averages_alone_are_the_unet(files: dict[str, Path], tmp_path: Path) -> None:
    """`use` and `drop` give the same: there is nothing else to take."""
    tensors = load_file(with_averages(files["sd1"], tmp_path / "both.safetensors"))
    plain = "model.diffusion_model."
    alone = {key: t for key, t in tensors.items() if not key.startswith(plain)}
    save_file(alone, tmp_path / "alone.safetensors")
    for ema in ("use", "drop"):
        made = load_file(
            run(tmp_path / "alone.safetensors", tmp_path / f"{ema}.safetensors", ema=ema).path
        )
        assert torch.equal(made[f"{plain}out.2.bias"], tensors["model_ema.diffusion_modelout2bias"])
        assert not any(key.startswith("model_ema") for key in made)
