"""The making of storybook from nothing: each step finds what it needs, and none is repeated."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from diffgen.cli.train import RECIPES
from diffgen.train.recipe.read import read_recipe
from scripts.storybook.make import BLOCKS, TRAINED, Step, main, make, plan, steps
from tests.tiny_models import STORYBOOK


def test_each_run_finds_what_earlier_steps_made() -> None:
    made: set[str] = set()
    for step in steps():
        if step.name in dict(TRAINED):
            recipe = read_recipe(RECIPES / f"{step.name}.toml")
            model = recipe.model
            needed = [recipe.data.path, model.base, model.autoencoder, recipe.autoencoder.teacher]
            needed += [] if model.tokenizer == "storybook" else [model.tokenizer]
            for path in filter(None, needed):
                assert path in made, f"{step.name} needs {path}"
        made |= {str(path.parent) for path in step.made}
        for word in (Path(word) for word in step.command if word.startswith(("data/", "runs/"))):
            known = [Path(path) for path in made]
            assert any(path.is_relative_to(word) or word.is_relative_to(path) for path in known)


def test_every_recipe_of_storybook_is_run() -> None:
    on_board = {path.stem for path in RECIPES.glob("storybook-[0-9]-*.toml")}
    assert on_board == dict(TRAINED).keys()


def test_it_grows_to_the_shape_of_the_model_on_board() -> None:
    config = json.loads((STORYBOOK / "unet" / "config.json").read_text())
    assert config["layers_per_block"] == [int(each) for each in BLOCKS]


def writing(folder: Path, name: str, code: str = "pass") -> Step:
    """A step that adds a letter to its file."""
    target = folder / name
    script = f"{code}; open({str(target)!r}, 'a').write('x')"
    return Step(name, (sys.executable, "-c", script), (target,), 2)


def test_what_was_made_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = writing(tmp_path, "a"), writing(tmp_path, "b", "raise SystemExit(3)")
    assert make([first, second]) == 3
    assert capsys.readouterr().err == "2/2 b failed; the same command goes on from here\n"
    assert plan([first, second]).endswith("     2 min in all, on two CPU cores")
    mended = writing(tmp_path, "b")
    assert make([first, mended]) == 0
    assert capsys.readouterr().out == "1/2 a: done before\n2/2 b: about 2 min\n"
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "x"


def test_the_plan_says_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--dry-run"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(steps())
    assert last == f"{sum(step.minutes for step in steps()):6.0f} min in all, on two CPU cores"
    assert not any(tmp_path.iterdir())
