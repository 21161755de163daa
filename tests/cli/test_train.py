import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from training import draw_squares, make_recipe

from diffgen import cli
from diffgen.train.tables import to_toml


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["diffgen", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(to_toml(make_recipe(draw_squares(tmp_path / "data"))))
    return file


def test_train(recipe, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert run(monkeypatch, recipe, "--set", "run.steps=2", "-o", folder) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(folder / "model")
    assert "step 2/2: loss " in err
    assert "run.steps = 2" in (folder / "recipe.toml").read_text()


def test_quiet(recipe, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, recipe, "--set", "run.steps=1", "-o", tmp_path / "run", "-q") == 0
    assert capsys.readouterr().err == ""


def test_dry_run(recipe, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, recipe, "--dry-run", "-o", tmp_path / "run") == 0
    assert "12 pictures to learn from" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--set", "run.stepz=2"], 1, 'unknown key "run.stepz"'),
        (["--resume"], 2, "no checkpoint to resume from"),
        (["--set", "data.path=/nowhere"], 2, "/nowhere"),
        (["--set", "run.device=mps"], 1, "device mps is not available"),
    ],
)
def test_bad_input_is_one_line(recipe, tmp_path, monkeypatch, capsys, options, code, message):
    assert run(monkeypatch, recipe, "-o", tmp_path / "run", *options) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
