import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import RECIPE, make_recipe

from diffgen.errors import ConfigError, UsageError
from diffgen.train.recipe.read import parse_recipe, read_recipe
from diffgen.train.recipe.tables import differences, to_toml

RECIPES = Path(__file__).parents[3] / "diffgen" / "assets" / "recipes"
EXAMPLE = RECIPES / "example.toml"


def test_the_shipped_example_is_valid():
    recipe = read_recipe(EXAMPLE)
    assert recipe.target == "diffusion"
    assert recipe.model.unet is not None
    assert recipe.model.unet.channels == (64, 128, 256)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path):
    assert read_recipe(path).run.steps > 0


def test_a_saved_recipe_reads_back_the_same():
    recipe = read_recipe(EXAMPLE, ['license=a "b" \\ c', "samples.prompts=[]", "data.cache=x"])
    assert parse_recipe(tomllib.loads(to_toml(recipe)), "saved") == recipe
    assert differences(recipe, parse_recipe(tomllib.loads(to_toml(recipe)), "saved")) == []


def test_overrides():
    changes = ["run.steps=7", "data.path=other place", 'objective.loss="huber"', "optimizer.lr=1"]
    recipe = read_recipe(EXAMPLE, changes)
    assert (recipe.run.steps, recipe.data.path) == (7, "other place")
    assert (recipe.objective.loss, recipe.optimizer.lr) == ("huber", 1.0)
    changed = differences(read_recipe(EXAMPLE), recipe)
    assert "run.steps: 20000 -> 7" in changed
    assert len(changed) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run.stepz=1", 'unknown key "run.stepz". Did you mean "steps"?'),
        ("optimiser.lr=1", 'unknown key "optimiser". Did you mean "optimizer"?'),
        ("model.unet.chanels=[1]", 'unknown key "model.unet.chanels". Did you mean "channels"?'),
        ("run.steps=0", '"run.steps" must be at least 1, not 0'),
        ("run.steps=1.5", '"run.steps" should be a whole number, not 1.5'),
        ("run.steps=true", '"run.steps" should be a whole number, not true'),
        ("data.flip=1", '"data.flip" should be true or false, not 1'),
        ("data.caption_dropout=1.5", '"data.caption_dropout" must be from 0 to 1, not 1.5'),
        ("optimizer.lr=nan", '"optimizer.lr" must be a finite number, not nan'),
        ("objective.loss=hubert", 'not "hubert". Did you mean "huber"?'),
        ("model.unet.channels=64", '"model.unet.channels" should be a list'),
        ("samples.prompts=[1]", '"samples.prompts" should be a list, each a string, not [1]'),
        ("data=5", '"data" should be a table, [data]'),
        ("model.unet.norm_groups=7", '"model.unet.norm_groups" is 7, which does not divide'),
        ("model.text.layers=0", '"model.text.layers" must be from 1 to 256, not 0'),
        ("model.text.num_heads=5", '"model.text.num_heads" is 5, which does not divide the width'),
        ("model.schedule.beta_end=2", '"model.schedule.beta_end" must be from 1e-08 to 0.9999'),
        (f"run.steps={'9' * 5000}", '"run.steps" should be a whole number, not "999'),
        (f"optimizer.lr=0x{'f' * 9000}", "should be a number, not a value too large to show"),
        (f"run.steps={'[' * 5000}", '"run.steps" should be a whole number, not "[[['),
        ("optimizer.beta1=1.0", "optimizer.beta1 must be below 1"),
        ("optimizer.beta2=1", "optimizer.beta2 must be below 1"),
        ('data.captions="words"', '"data.captions" should be one of "auto", "lines", "whole"'),
        ("run.steps.x=5", '"steps" is not a table'),
        ("run.steps", "--set takes KEY=VALUE"),
        ("model.base=storybook", "model.base brings its own unet; drop model.unet"),
        ("model.vae.blocks=1", "model.autoencoder names the folder of a trained one"),
        ("target=autoencoder", "needs model.base or [model.vae]"),
        ("run.steps=1979-05-27", '"run.steps" should be a whole number, not "1979-05-27"'),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ConfigError) as caught:
        read_recipe(EXAMPLE, [change])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["target", "data", "run"])
def test_missing_keys_are_named(key):
    table = {k: v for k, v in RECIPE.items() if k != key}
    table.setdefault("data", {})
    if key != "data":
        table["data"] = {**RECIPE["data"], "path": "x"}
    with pytest.raises(ConfigError, match="is missing"):
        parse_recipe(table, "r.toml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text(f"a = {'[' * 100_000}")
    with pytest.raises(ConfigError, match=r"bad\.toml: not usable TOML: it is nested too deeply"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigError, match=r"bad\.toml is not UTF-8 text"):
        read_recipe(tmp_path / "bad.toml")


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.read_bytes())
    assert read_recipe(path) == read_recipe(EXAMPLE)


def test_checking_a_recipe_needs_no_torch():
    code = (
        "import sys, diffgen.train.recipe.recipe, diffgen.cli.train; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLE.parents[3],
    )
    assert done.stdout.strip() == "False"


WORDS = st.text(max_size=30)  # quotes, controls, emoji: all but lone surrogates


@given(name=WORDS, license=WORDS, path=WORDS, prompts=st.lists(WORDS, max_size=3))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_any_words_come_back_from_a_saved_recipe(name, license, path, prompts):
    recipe = make_recipe(Path("x"), {"samples.prompts": prompts})
    data = replace(recipe.data, path=path)
    recipe = replace(recipe, name=name, license=license, data=data)
    assert parse_recipe(tomllib.loads(to_toml(recipe)), "saved") == recipe


def test_a_file_name_that_is_no_utf_8_is_refused():
    """A recipe that holds one could be saved, and never be read back."""
    with pytest.raises(
        UsageError, match=r"data\.path: caf\\udce9 is not UTF-8, as a recipe is"
    ) as no:
        make_recipe(Path(os.fsdecode(b"caf\xe9")))
    str(no.value).encode()
