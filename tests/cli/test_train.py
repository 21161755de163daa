import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from training import draw_squares, make_recipe

from diffgen import cli
from diffgen.files import locked
from diffgen.train import run as runs
from diffgen.train.loop import Trainer
from diffgen.train.recipe.read import read_recipe
from diffgen.train.recipe.tables import to_toml


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
    assert read_recipe(folder / "recipe.toml").run.steps == 2


def test_a_signal_before_the_first_step_leaves_nothing_to_resume(
    recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runs, "_summary", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert run(monkeypatch, recipe, "-o", tmp_path / "run") == 143
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "error: stopped by SIGTERM"
    assert "--resume" not in err
    monkeypatch.undo()
    assert run(monkeypatch, recipe, "--set", "run.steps=1", "-o", tmp_path / "run", "-q") == 0


def test_a_signal_during_the_last_export_is_not_forgotten(recipe, tmp_path, monkeypatch, capsys):
    export = Trainer.export

    def interrupted(trainer, reporter):
        os.kill(os.getpid(), signal.SIGTERM)
        export(trainer, reporter)

    monkeypatch.setattr(Trainer, "export", interrupted)
    folder = tmp_path / "run"
    assert run(monkeypatch, recipe, "--set", "run.steps=1", "-o", folder) == 143
    out, err = capsys.readouterr()
    assert out.strip() == str(folder / "model")
    assert err.splitlines()[-1] == "stopped by SIGTERM; the run had ended, and its result is whole"


@pytest.mark.parametrize("name", ["model", "metrics.jsonl", "recipe.toml"])
def test_a_folder_of_other_things_is_refused(recipe, tmp_path, monkeypatch, capsys, name):
    other = tmp_path / "run" / name
    other.mkdir(parents=True) if name == "model" else other.parent.mkdir()
    if name != "model":
        other.write_text("mine")
    assert run(monkeypatch, recipe, "-o", tmp_path / "run") == 2
    assert f"{tmp_path / 'run'} holds {name}, which a run would replace" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_a_run_stopped_before_its_first_checkpoint_may_start_again(recipe, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("recipe.toml", "metrics.jsonl"):  # what kill -9 leaves, with the lock
        (folder / name).touch()
    (folder / ".lock").touch()
    assert run(monkeypatch, recipe, "-o", folder, "-q") == 2  # somebody else's lock
    (folder / ".lock").write_text("123")
    assert run(monkeypatch, recipe, "--set", "run.steps=1", "-o", folder, "-q") == 0
    assert (folder / "model").is_dir()


def test_a_file_is_no_folder_for_a_run(recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert run(monkeypatch, recipe, "-o", tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
    assert run(monkeypatch, recipe, "-o", tmp_path / "file" / "run") == 2
    assert f"cannot work in {tmp_path / 'file' / 'run'}" in capsys.readouterr().err


def test_one_process_at_a_time_works_in_a_folder(recipe, tmp_path, monkeypatch, capsys):
    with locked(tmp_path / "run"):
        assert run(monkeypatch, recipe, "-o", tmp_path / "run") == 1
    err = capsys.readouterr().err
    assert f"run is in use by process {os.getpid()}" in err
    assert not (tmp_path / "run").exists()


def test_the_model_outlives_whatever_fails_after_it(recipe, tmp_path, monkeypatch, capsys):
    """No git on PATH, no font for the curve: the model and its card are there."""

    def fail(*_):
        raise RuntimeError("no font\nat all")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runs, "plot_curve", fail)
    folder = tmp_path / "run"
    assert run(monkeypatch, recipe, "--set", "run.steps=1", "-o", folder) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(folder / "model")
    assert "the loss curve could not be made: no font" in err
    assert "diffgen 0." in (folder / "model" / "README.md").read_text()


def test_checkpoints_are_written_by_time_too(recipe, tmp_path, monkeypatch):
    rare = ("--set", "run.checkpoint_every=100", "--set", "run.checkpoint_minutes=1e-9")
    kept = ("--set", "run.steps=3", "--set", "run.keep_last=9")
    assert run(monkeypatch, recipe, *rare, *kept, "-o", tmp_path / "run", "-q") == 0
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == [f"step-{step:08d}.pt" for step in (1, 2, 3)]


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--example") == 0
    text = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(text)
    draw_squares(tmp_path / "photos")
    small = ("--set", "run.batch_size=2", "--dry-run")
    assert run(monkeypatch, "my.toml", *small) == 0
    assert "16 pictures to learn from" in capsys.readouterr().out
    assert run(monkeypatch, "example", *small, "--set", "run.steps=3") == 0
    assert "3 steps" in capsys.readouterr().out


def test_recipes_that_are_not_there_are_named(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "exampel") == 2
    assert (
        'there is no recipe exampel; --example prints one to begin with. Did you mean "example"?'
        in (capsys.readouterr().err)
    )


def test_a_folder_of_pictures_is_no_recipe(tmp_path, monkeypatch, capsys):
    (tmp_path / "my photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "my photos") == 2
    quick = "diffgen train --lora --data 'my photos' -m MODEL"
    assert f"my photos is a folder, not a recipe; a LoRA on its pictures: {quick}" in (
        capsys.readouterr().err
    )


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
        (["--set", "target=distill"], 1, "the distill target needs model.base"),
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


SHORT = ("--set", "run.steps=1", "--set", "samples.prompts=[]", "--set", "run.precision=fp32")


@pytest.fixture
def one_line(tmp_path):
    """A LoRA without a recipe, of the model on board."""
    data = draw_squares(tmp_path / "photos")
    return ("--lora", "--data", data, "-m", "storybook", *SHORT)


def test_a_lora_in_one_line(one_line, tmp_path, monkeypatch, capsys):
    file = tmp_path / "out" / "my-style.safetensors"
    assert run(monkeypatch, *one_line, "-o", file) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}\n"
    assert err.startswith(f"the run's folder is {file.with_suffix('.run')}\n")
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "my-style.run",
        "my-style.safetensors",
    ]
    recipe = read_recipe(tmp_path / "out" / "my-style.run" / "recipe.toml")
    assert (recipe.name, recipe.data.size) == ("my-style", 256)
    assert (recipe.lora.rank, recipe.optimizer.lr) == (16, 1e-4)
    assert run(monkeypatch, *one_line, "-o", file) == 2
    assert f"{file} exists" in capsys.readouterr().err


def test_a_lora_in_a_folder(one_line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *one_line, "-q") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("runs/photos-lora/model/lora.safetensors\n", "")
    assert Path(out.strip()).is_file()


def test_every_picture_needs_a_caption(one_line, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos" / "03.txt").unlink()
    assert run(monkeypatch, *one_line, "-o", tmp_path / "x.safetensors") == 1
    assert "no caption for 1 file (03.png)" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()
    words = ("--caption", "a photo of \U0001f415 sks dog")
    assert run(monkeypatch, *one_line, *words, "-o", tmp_path / "x.safetensors") == 0
    assert (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give a RECIPE.toml, or --lora with --data DIR and -m MODEL"),
        (["--lora", "--data", "photos"], 2, "give a RECIPE.toml, or --lora"),
        (["--lora", "-m", "storybook"], 2, "give a RECIPE.toml, or --lora"),
        (["--data", "photos", "-m", "storybook"], 2, "give a RECIPE.toml, or --lora"),
        (["small.toml", "--lora"], 2, "drop it, or small.toml"),
        (["small.toml", "--data", "photos"], 2, "for a recipe use --set data.path"),
        (["small.toml", "--no-zero-snr"], 2, "for a recipe use --set model.zero_snr="),
        (
            ["small.toml", "--prediction", "v"],
            2,
            "--prediction: for --lora; for a recipe use --set model.pre",
        ),
        (["small.toml", "--caption", "a dog"], 2, "--set data.caption="),
        (["--lora", "--data", "nowhere", "-m", "storybook"], 2, "nowhere does not exist"),
        (["--lora", "--data", "photos", "-m", "nothing"], 2, "nothing"),
        (
            ["--lora", "--data", "photos", "-m", "storybook", "--set", "lora.rnk=2"],
            1,
            'unknown key "lora.rnk". Did you mean "rank"',
        ),
        (
            ["--lora", "--data", "photos", "-m", "storybook", "--set", "data.path=caf\udce9"],
            2,
            r"--lora: data.path: caf\udce9 is not UTF-8",
        ),
        (
            ["--lora", "--data", "\udce9", "-m", "storybook"],
            2,
            r"--lora: data: \udce9 is not UTF-8",
        ),
        (
            ["--lora", "--data", "photos", "-m", "storybook", "--caption", "\udce9"],
            2,
            r"--lora: caption: \udce9 is not UTF-8, as a recipe is",
        ),
        (["small.toml", "--set", "name=\udce9"], 2, r"name: \udce9 is not UTF-8"),
        (["small.toml", "-o", "caf\udce9"], 2, r"folder caf\udce9 is not UTF-8; name another"),
        (["small.toml", "-o", "x.safetensors"], 2, "makes a model folder, not a file"),
    ],
)
def test_a_request_for_a_lora_that_is_refused(
    recipe, tmp_path, monkeypatch, capsys, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    draw_squares(tmp_path / "photos")
    assert run(monkeypatch, *arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
