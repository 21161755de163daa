"""`diffgen convert`: what is said and printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file
from terminals import in_terminal
from torch import zeros
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.errors import UsageError


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    save_file({"emb_params": zeros(2, 768)}, tmp_path / "cat.safetensors")
    return tmp_path / "cat.safetensors"


def test_path_and_summary(embedding: Path, tmp_path: Path) -> None:
    target = tmp_path / "half.safetensors"
    result = CliRunner().invoke(app, ["convert", str(embedding), str(target), "--dtype", "fp16"])
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    assert result.stderr == "1 tensors, 3.15 kB, read back and compared\n"


def test_as_json(embedding: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    result = CliRunner().invoke(app, ["convert", str(embedding), str(target), "--json"])
    found = json.loads(result.stdout)
    assert found == {"path": str(target), "tensors": 1, "size": target.stat().st_size}


def test_a_whole_model_at_a_terminal(tmp_path: Path) -> None:
    first, second = in_terminal(
        ["convert", "storybook", "copy", "--dtype", "bf16"],
        ["convert", "storybook", "copy"],
        cwd=tmp_path,
    )
    assert first.code == 0
    assert first.screen[0] == "copy"
    assert "618 tensors, 39.5 MB, read back and compared" in first.screen
    assert second.code == 2
    assert "copy is there already; --overwrite replaces it" in second.terminal


def test_a_number_format_that_is_none(embedding: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(embedding), "x", "--dtype", "int4"])
    assert result.exit_code != 0


def test_a_lora_that_is_nowhere(embedding: Path, tmp_path: Path) -> None:
    arguments = ["convert", "storybook", str(tmp_path / "x"), "--lora", "nothing"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith("--lora: there is no file nothing")
