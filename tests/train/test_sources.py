"""diffgen.train.sources: a moved model goes on, a changed one is refused for what it is."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from training import Listener, make_recipe

from diffgen.errors import ConfigError
from diffgen.train import run
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.sources import hash_sources

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def base(sd1: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd1.folder, tmp_path / "base"))


def lora(squares: Path, base: Path, **changes: Any) -> Recipe:
    fixed = {"target": "lora", "model": {"base": str(base)}, "lora.rank": 2, "data.size": 32}
    return make_recipe(squares, {**fixed, "run.steps": 1, "data.validation": 0, **changes})


def make_louder(file: Path) -> None:
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)


def test_a_run_goes_on_beside_its_moved_base_and_not_beside_another(
    squares: Path, base: Path, tmp_path: Path
) -> None:
    folder, moved = tmp_path / "run", tmp_path / "elsewhere"
    run.train(lora(squares, base), folder, resume=False, reporter=Listener())
    base.rename(moved)
    again = lora(squares, moved, **{"run.steps": 2})
    listener = Listener()
    run.train(again, folder, resume=True, reporter=listener)
    assert len(listener.losses) == 1
    make_louder(moved / UNET)
    with pytest.raises(
        ConfigError, match=r"recipe: the files of model\.base have changed; restore"
    ):
        run.train(again, folder, resume=True, reporter=Listener())


def test_each_key_that_names_files_has_a_hash_of_its_own(squares: Path, base: Path) -> None:
    recipe = lora(squares, base, **{"model.autoencoder": str(base)})
    before = hash_sources(recipe)
    assert before.keys() == {"model.base", "model.autoencoder"}
    make_louder(base / "vae" / "diffusion_pytorch_model.safetensors")
    after = hash_sources(recipe)
    assert after["model.base"] == before["model.base"]
    assert after["model.autoencoder"] != before["model.autoencoder"]
    merges = base / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text() + "\n")
    assert hash_sources(recipe)["model.base"] != after["model.base"]


def test_a_new_model_has_the_hash_of_its_vocabulary(squares: Path) -> None:
    assert hash_sources(make_recipe(squares)).keys() == {"model.tokenizer"}
    learned = make_recipe(squares, {"model.tokenizer": "captions", "model.text.vocab_size": 600})
    assert hash_sources(learned) == {}
