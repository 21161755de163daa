"""`diffgen inspect`: what a person and a program read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from terminals import ROOT
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.errors import WeightsError

TURBO = ROOT / "diffgen" / "assets" / "storybook-turbo" / "lora.safetensors"


def test_a_named_model_is_described() -> None:
    result = CliRunner().invoke(app, ["inspect", "storybook"])
    assert result.exit_code == 0
    lines = {line[:16].strip(): line[17:] for line in result.stdout.splitlines()}
    assert lines["known as"] == "storybook, licence: Apache-2.0"
    assert lines["prediction"] == "v"
    assert lines["unet"] == "370 tensors, 14.27 M parameters, F16"


def test_as_json() -> None:
    result = CliRunner().invoke(app, ["inspect", str(TURBO), "--json", "--hash"])
    found = json.loads(result.stdout)
    assert (found["holds"], found["adapter"]["ranks"]) == ("lora", [32])
    assert found["metadata"]["ss_network_module"] == "networks.lora"
    assert len(found["sha256"]["lora.safetensors"]) == 64


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"PK\x03\x04")
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert isinstance(result.exception, WeightsError)
    assert "is a pickle" in str(result.exception)


def test_a_pickled_embedding_is_described(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.ones(3, 768)}}, tmp_path / "word.pt")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "word.pt"), "--json"])
    found = json.loads(result.stdout)
    assert (found["holds"], found["family"], found["trouble"]) == ("embedding", "sd1", None)


@pytest.mark.parametrize("source", ["storybook", str(TURBO)])
def test_no_torch_is_loaded(source: str) -> None:
    code = (
        "import sys; from diffgen.weights.inspection import inspect; "
        f"inspect({source!r}); print({{'torch', 'numpy'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
