"""diffgen.weights.textual_inversion: every spelling of a textual inversion, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffgen.errors import WeightsError
from diffgen.models.config import ClipTextConfig, ModelConfig
from diffgen.types import EmbeddingRef
from diffgen.weights.textual_inversion import names_of, read_embeddings

ONE, TWO = torch.arange(8.0).reshape(2, 4), torch.arange(12.0).reshape(2, 6) + 1


@pytest.fixture
def sd1(request: pytest.FixtureRequest) -> ModelConfig:
    from diffgen.weights.checkpoint import Checkpoint

    config = Checkpoint.open(request.getfixturevalue("sd1").folder).config
    return replace(config, text=(replace(config.text[0], width=4),))


@pytest.fixture
def sdxl(sd1: ModelConfig) -> ModelConfig:
    first: ClipTextConfig = sd1.text[0]
    return replace(sd1, text=(first, replace(first, width=6)))


def read(path: Path, config: ModelConfig, name: str | None = None) -> dict[str, list[Tensor]]:
    return {k: list(v) for k, v in read_embeddings([EmbeddingRef(path, name)], [], config).items()}


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("emb_params", {"word"}),
        ("string_to_param.*", {"word"}),
        ("*", {"word"}),
        ("clip_l", {"word"}),
        ("<cat>", {"word", "<cat>"}),
    ],
)
def test_spellings_for_one_encoder(
    key: str, names: set[str], sd1: ModelConfig, tmp_path: Path
) -> None:
    save_file({key: ONE.half()}, tmp_path / "word.safetensors")
    found = read(tmp_path / "word.safetensors", sd1)
    assert set(found) == names
    for (vectors,) in found.values():
        assert torch.equal(vectors, ONE)
    assert set(read(tmp_path / "word.safetensors", sd1, "other")) == {"other"}


@pytest.mark.parametrize("keys", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_spellings_for_two(keys: tuple[str, str], sdxl: ModelConfig, tmp_path: Path) -> None:
    save_file({keys[0]: ONE, keys[1]: TWO}, tmp_path / "word.safetensors")
    (found,) = read(tmp_path / "word.safetensors", sdxl).values()
    assert torch.equal(found[0], ONE)
    assert torch.equal(found[1], TWO)


@pytest.mark.parametrize("parameter", [False, True])
def test_a1111s_pickles(parameter: bool, sd1: ModelConfig, tmp_path: Path) -> None:
    vectors = torch.nn.Parameter(ONE) if parameter else ONE
    data = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "x",
        "step": 9,
    }
    torch.save(data, tmp_path / "word.pt")
    ((found,),) = read(tmp_path / "word.pt", sd1).values()
    assert torch.equal(found, ONE)
    assert not found.requires_grad


def test_diffusers_pickles_of_one_vector(sd1: ModelConfig, tmp_path: Path) -> None:
    torch.save({"<cat>": ONE[1]}, tmp_path / "learned_embeds.bin")
    found = read(tmp_path / "learned_embeds.bin", sd1)
    assert set(found) == {"learned_embeds", "<cat>"}
    assert torch.equal(found["<cat>"][0], ONE[1:])


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch ran",)


def test_a_pickle_with_code_runs_nothing(
    sd1: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"*": Evil()}, tmp_path / "new.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "new.pt").read_bytes()[:100])
    for name in ("new", "old", "cut"):
        with pytest.raises(WeightsError, match=rf"{name}\.pt is a pickle with more than plain ten"):
            read(tmp_path / f"{name}.pt", sd1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tensors", "two", "message"),
    [
        (
            {"emb_params": torch.ones(2, 1024)},
            False,
            "is an embedding for Stable Diffusion 2: .* 1024",
        ),
        ({"clip_l": ONE, "clip_g": TWO}, False, "for the two text encoders of Stable Diffusion XL"),
        (
            {"emb_params": torch.ones(2, 768)},
            True,
            "is an embedding for Stable Diffusion 1, and this model needs vectors for two",
        ),
        ({"emb_params": ONE}, True, "for one text encoder, and this model needs vectors for two"),
        (
            {"lora_unet_x.lora_up.weight": ONE, "b": ONE + 1},
            False,
            "is no embedding but a LoRA; give",
        ),
        ({"image_proj.proj.weight": ONE, "b": ONE + 1}, False, "is no embedding but an IP-Adapter"),
        ({"clip_l": ONE, "clip_g": TWO[:1]}, True, "different numbers of vectors"),
        ({"emb_params": ONE.log()}, False, '"emb_params" has numbers that are not finite'),
        ({"emb_params": torch.ones(2, 2, 4)}, False, "is no embedding: emb_params has shape"),
        ({"a": ONE, "b": ONE + 1}, False, "is no embedding that is known: its tensors are a, b"),
        ({}, False, "it has no tensors"),
    ],
)
def test_what_is_refused(
    tensors: dict[str, Tensor],
    two: bool,
    message: str,
    sd1: ModelConfig,
    sdxl: ModelConfig,
    tmp_path: Path,
) -> None:
    file = tmp_path / "word.safetensors"
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=message) as caught:
        read(file, sdxl if two else sd1)
    assert str(file) in str(caught.value)


def test_a_picture_that_holds_one_is_named(sd1: ModelConfig, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="embeddings that A1111 hid in pictures are not read"):
        read(tmp_path / "word.png", sd1)


def test_the_refiner_reads_that_of_its_encoder(sdxl: ModelConfig, tmp_path: Path) -> None:
    second = replace(
        sdxl, text=sdxl.text[1:], unet=replace(sdxl.unet, added_dim=13, time_ids_dim=1)
    )
    second = replace(second, text=(replace(second.text[0], projection=8),))
    assert second.conditioning == "score"
    save_file({"clip_l": ONE, "clip_g": TWO}, tmp_path / "word.safetensors")
    ((found,),) = read(tmp_path / "word.safetensors", second).values()
    assert torch.equal(found, TWO)


@pytest.mark.parametrize("pickled", [False, True])
def test_names_are_known_without_vectors(pickled: bool, tmp_path: Path) -> None:
    path = tmp_path / ("Word.pt" if pickled else "Word.safetensors")
    if pickled:
        torch.save({"<Cat>": ONE}, path)
    else:
        save_file({"<Cat>": ONE}, path)
    assert names_of([EmbeddingRef(path)], []) == {"word", "<cat>"}
    assert names_of([EmbeddingRef(path, "Other")], []) == {"other"}


def test_embeddings_that_come_with_a_lora(
    sd1: ModelConfig, sdxl: ModelConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({"bundle_emb.a.b.string_to_param.*": ONE, "lora_unet_x.alpha": TWO}, file)
    assert torch.equal(read_embeddings([], [file], sd1)["a.b"][0], ONE)
    assert f"{file} brings embeddings along, which prompts with these words use: a.b" in caplog.text
    save_file({"bundle_emb.word.clip_l": ONE, "bundle_emb.word.clip_g": TWO}, file)
    assert torch.equal(read_embeddings([], [file], sdxl)["word"][1], TWO)
