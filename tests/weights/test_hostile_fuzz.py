"""Mutations of real files end in one DiffgenError that names the file, or in a sound config.

scripts/fuzz.py does the same to whole models, thousands of times.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json, damaged_safetensors
from safetensors.torch import save

from diffgen.errors import DiffgenError
from diffgen.models.checks import check_model
from diffgen.text.tokenizer import Tokenizer
from diffgen.weights import reading
from diffgen.weights.diffusers.configs import read_model_config
from diffgen.weights.diffusers.folder import weight_files
from diffgen.weights.files import read_header
from diffgen.weights.registry import read_registry, registry_path

TESTS = Path(__file__).parents[1]
MODELS = ("sd15", "sd21", "sdxl")
SHARDS = {"a": "1.safetensors", "b": "2.safetensors"}
TENSORS = save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.float16)}, {"note": "x"})
SLOWEST = 5.0  # seconds of the processor, whatever else it has to do

random_damage = given(st.randoms(use_true_random=False))


def cases(count: int) -> settings:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def refused_or_read(path: Path) -> Iterator[None]:
    """Nothing, or a DiffgenError of one line that names the file; any other error is a fault."""
    start = time.process_time()
    try:
        yield
    except DiffgenError as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        assert len(message) < 1200
    assert time.process_time() - start < SLOWEST


def damage(file: Path, harm: Callable[[str, Random], bytes], rng: Random) -> None:
    file.write_bytes(harm(file.read_text(encoding="utf-8"), rng))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "TICK_NS", 0)  # nobody else writes to these files
        yield tmp_path_factory.mktemp("hostile")


@cases(500)
@random_damage
def test_configs(place: Path, rng: Random) -> None:
    folder = place / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TESTS / "data" / "configs" / rng.choice(MODELS), folder)
    file = rng.choice(sorted(folder.rglob("*.json")))
    damage(file, damaged_json, rng)
    with refused_or_read(folder):
        check_model(read_model_config(folder), str(folder))


@cases(300)
@random_damage
def test_tokenizers(place: Path, rng: Random) -> None:
    folder = place / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TESTS / "vocabulary", folder)
    merges = folder / "merges.txt"
    if rng.random() < 0.5:  # the newer layout
        pairs = [line for line in merges.read_text().split("\n")[1:] if line]
        vocab = json.loads((folder / "vocab.json").read_text())
        model = {"type": "BPE", "vocab": vocab, "merges": pairs}
        (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
        merges.unlink()
        (folder / "vocab.json").unlink()
    file = rng.choice(sorted(folder.iterdir()))
    if file == merges:
        merges.write_bytes(damaged_bytes(merges.read_bytes(), rng))
    else:
        damage(file, damaged_json, rng)
    with refused_or_read(folder):
        tokenizer = Tokenizer.from_folder(folder, max_tokens=32, vocab_size=950)
        ids = tokenizer.encode("a red barn, <|endoftext|> at sunset!").ids
        assert all(0 <= number < 950 for number in ids)


@cases(500)
@random_damage
def test_headers(place: Path, rng: Random) -> None:
    file = place / "model.safetensors"
    file.write_bytes(damaged_safetensors(TENSORS, rng))
    with refused_or_read(file):
        for info in read_header(file).values():
            assert all(type(size) is int and size >= 0 for size in info.shape)


@cases(200)
@random_damage
def test_indices_of_shards(place: Path, rng: Random) -> None:
    folder = place / "unet"
    folder.mkdir(exist_ok=True)
    for name in SHARDS.values():
        (folder / name).touch()
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": SHARDS}))
    damage(index, damaged_json, rng)
    with refused_or_read(folder):
        assert all(file.parent == folder for file in weight_files(folder, "unet"))


@cases(200)
@random_damage
def test_registries(place: Path, rng: Random) -> None:
    file = place / "weights.toml"
    text = registry_path().read_bytes()
    file.write_bytes(damaged_bytes(text, rng) if rng.random() < 0.5 else text + b"[x]\nsteps = [")
    with refused_or_read(file):
        read_registry(file)
