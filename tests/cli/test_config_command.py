"""`diffgen config`, and settings of the configuration in the commands that take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.errors import ConfigError, UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("DIFFGEN_CONFIG", str(path))
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output or result.exception
    return result.stdout


def test_where_the_file_would_be(file: Path) -> None:
    assert run("config").splitlines() == [
        f"{file} (not there yet; --example prints one to start from)",
        "model  storybook  (diffgen)",
    ]


def test_the_example_is_understood(file: Path) -> None:
    file.write_text(run("config", "--example"))
    found = json.loads(run("config", "--json"))
    assert found["settings"]["steps"] == {
        "value": 12,
        "source": f"{file} [models.storybook]",
    }
    assert found["folders"]["programs"]["value"][0].endswith("/ComfyUI")


def test_values_and_where_they_come_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFGEN_SEED", "7")
    file.write_text("[settings]\nsteps = 3\n[models.sdxl]\nsteps = 30\n")
    lines = run("config").splitlines()
    assert f"settings.steps     3  ({file} [settings])" in lines
    assert "settings.seed      7  (DIFFGEN_SEED)" in lines
    assert f"settings.steps  30  ({file} [models.sdxl])" in run("config", "-m", "sdxl").splitlines()


def test_folders_that_are_not_there_are_told(file: Path, tmp_path: Path) -> None:
    file.write_text(f'[folders]\nloras = ["{tmp_path}", "/not/there"]\n')
    (line,) = [each for each in run("config").splitlines() if each.startswith("folders.")]
    assert line.endswith("; not there: /not/there)")


def test_set_writes_and_shows(file: Path) -> None:
    assert f"settings.steps  12  ({file} [settings])" in run(
        "config", "set", "settings.steps", "12"
    )
    assert file.read_text() == "[settings]\nsteps = 12\n"
    result = CliRunner().invoke(app, ["config", "set", "steps"])
    assert isinstance(result.exception, UsageError)


def test_generate_takes_what_is_configured(file: Path, tmp_path: Path) -> None:
    file.write_text(f'[settings]\noutput = "{tmp_path}"\nseed = 5\n[models.storybook]\nsteps = 2\n')
    record = json.loads(run("generate", "red barn", "--json", "-q"))
    assert (record["steps"], record["seed"]) == (2, 5)
    assert Path(record["path"]).parent == tmp_path
    record = json.loads(run("generate", "red barn", "--json", "-q", "--steps", "1"))
    assert (record["steps"], record["seed"]) == (1, 5)


def test_a_broken_file_is_one_line_that_names_it(file: Path) -> None:
    file.write_text("[settings]\nsteps = 'many'\n")
    result = CliRunner().invoke(app, ["generate", "x"])
    assert isinstance(result.exception, ConfigError)
    message = f'{file} [settings]: "steps" takes a whole number, not "many"'
    assert str(result.exception) == message


def test_a_default_model_that_is_not_here_says_how_to_get_it(file: Path) -> None:
    file.write_text('model = "sdxl"\n')
    result = CliRunner().invoke(app, ["generate", "x"])
    assert isinstance(result.exception, UsageError)
    assert "diffgen pull sdxl" in str(result.exception)


def test_loras_and_autoencoders_are_found_by_name(file: Path, tmp_path: Path) -> None:
    file.write_text(f'[folders]\nloras = "{tmp_path}"\nvaes = "{tmp_path}"\n')
    for option, kind in (("--lora", "lora"), ("--vae", "vae")):
        result = CliRunner().invoke(app, ["generate", "x", option, "cut"])
        assert isinstance(result.exception, UsageError)
        assert (
            f"{option}: there is no file cut, nor one of that name in the folders of {kind}"
            in str(result.exception)
        )
