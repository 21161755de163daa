"""Wrong command lines are explained in our own words."""

import sys
from pathlib import Path

import pytest

from diffgen import cli
from diffgen.cli.mistakes import known_trouble
from diffgen.cli.peers import OPTIONS, TRAINING


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("generate x --steps many", '--steps takes a whole number, not "many"'),
        ("generate x --seed 1.5", '--seed takes a whole number, not "1.5"'),
        ("generate x -g abc", "--guidance takes a number or "),
        ("generate x --device tpu", '--device takes auto, cpu, cuda or mps, not "tpu"'),
        ("generate x --steps", "--steps needs a value"),
        ("generate x -o", "-o needs a value"),
        ("generate x --stesp 3", 'there is no --stesp. Did you mean "--steps"?'),
        ("generate x --cfg-scale 3", "there is no --cfg-scale; here it is --guidance"),
        ("generate x --cfg_scale 3", "there is no --cfg_scale; here it is --guidance"),
        ("generate x --W 3", "there is no --W; here it is --width"),
        ("generate x --n_iter 3", "there is no --n_iter; here it is --count"),
        (
            "generate x --scheduler ddim",
            "there is no --scheduler; here it is --sampler, or --schedule for the spacing",
        ),
        ("sample-steps x --sampler ddim", 'there is no --sampler. Did you mean "--samplers"?'),
        ("train a.toml --lr 3", "there is no --lr; here it is --set optimizer.lr=X"),
        ("train a.toml b.toml", 'one argument too many: "b.toml"'),
        ("train a.toml --progress json", "there is no --progress"),
        ("sample-steps a --progress json", "there is no --progress"),
        ("convert a b --progress json", "there is no --progress"),
        ("samplers more", 'one argument too many: "more"'),
        ("genrate", 'no command "genrate". Did you mean "generate"?'),
        ("red barn --steps 3", 'to make a picture: diffgen generate "red barn"'),
        ("$x", "to make a picture: diffgen generate '$x'"),
        ("my.toml", "to train by a recipe: diffgen train my.toml"),
        ("--steps 3 x", "--steps comes after a command: diffgen generate PROMPT --steps"),
        ("generate x -x", "there is no -x (--help"),
        ("generate -5 degrees", "there is no -5; words that begin with - come last, after --"),
        ("generate x --ar 16:9", "there is no --ar; here it is --width and --height"),
        ("gen x", 'no command "gen". Did you mean "generate"?'),
        ("in winter", 'to make a picture: diffgen generate "in winter"'),
        ("-x", "-x comes after a command"),
    ],
)
def test_one_line_says_what_to_write(
    arguments: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["diffgen", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith(f"error: {line}")
    assert err.endswith(" (--help tells more)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("command", "table"), [("generate", OPTIONS), ("train", TRAINING)])
def test_answers_name_options_that_exist(
    command: str,
    table: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["diffgen", command, "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    words = capsys.readouterr().out.replace(",", " ").split()
    for name, ours in table.items():
        assert f"--{name}" not in words
        assert not ours.startswith("--") or ours.split()[0].rstrip(",") in words


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "x", "-m", "./nothing"),
        ("generate", "x", "--vae", "nothing"),
        ("generate", "x", "--lora", "nothing"),
        ("generate", "--prompts", "nothing"),
        ("train", "nothing.toml"),
        ("train", "--lora", "--data", "nothing", "-m", "storybook"),
        ("sample-steps", "x", "--compare", "nothing.json"),
        ("sample-steps", "x", "-m", "./nothing"),
    ],
)
def test_what_is_not_there_is_one_kind_of_mistake(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["diffgen", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "nothing" in capsys.readouterr().err


def test_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "argv", ["diffgen", "generate", "x"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "error: the current folder is gone; change to one that exists\n"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file"), ("the current folder is gone; change to one", 2)),
        (OSError(36, "File name too long", "x"), ("x: File name too long", 2)),
        (OSError(28, "No space left", b"caf\xe9"), ("caf\udce9: No space left", 1)),
    ],
)
def test_what_the_system_says_is_one_line(error: Exception, told: tuple[str, int]) -> None:
    trouble = known_trouble(error)
    assert trouble is not None
    assert trouble[0].startswith(told[0])
    assert trouble[1] == told[1]


def test_a_defect_is_no_known_trouble() -> None:
    assert known_trouble(ZeroDivisionError()) is None
    assert known_trouble(RuntimeError("x")) is None
