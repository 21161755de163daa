"""`diffgen doctor`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from terminals import in_terminal
from typer.testing import CliRunner

from diffgen.cli import machine
from diffgen.cli.commands import app
from diffgen.cli.doctor import slow
from diffgen.device import Precision, pick_device

FAST: dict[str, Any] = {
    "device": "cuda",
    "dtype": "fp16",
    "dtype_reason": "",
    "products": {},
    "nvidia_driver": True,
    "cuda_build": "13.0",
    "threads": {
        "used": 16,
        "configured_by": None,
        "environment": {},
        "cores_all": 16,
        "cores_usable": 16,
        "cores_quota": None,
        "cores_load": 0.1,
    },
    "memory": {"total": 64 * 10**9, "free": 60 * 10**9, "swapped": 0},
    "disk": {"downloads": {"free": 10**12}},
}


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with nothing configured, whose number of threads stays as it is."""
    for name in machine.THREAD_VARIABLES:  # what the command sets is taken back afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


def facts(code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["doctor", "--json"], standalone_mode=False)
    assert result.return_value == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_tells_what_a_run_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    found = facts()
    assert found["device"] == pick_device().type
    assert found["dtype"] == Precision.pick("auto", pick_device()).name
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"]["used"] == torch.get_num_threads()
    assert found["threads"]["environment"]["OMP_WAIT_POLICY"] == "ACTIVE"
    assert found["trouble"] == []
    assert all(1e8 < speed < 1e15 for speed in found["products"].values())


def test_what_diffgen_sets_itself_is_not_the_users_word() -> None:
    assert facts()["threads"]["environment"] == {}


def test_the_configuration_counts_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[settings]\ndtype = "fp16"\n')
    monkeypatch.setenv("DIFFGEN_CONFIG", str(file))
    found = facts()
    assert found["configuration"] == {"path": str(file), "there": True}
    assert found["dtype"] == "fp16"
    assert str(file) in found["dtype_reason"]


@pytest.mark.parametrize("text", ["no toml", "[settings]\nstepz = 3\n"])
def test_a_broken_configuration_is_told_with_all_the_rest(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    monkeypatch.setenv("DIFFGEN_CONFIG", str(file))
    found = facts(code=1)
    (trouble,) = found["trouble"]
    assert str(file) in trouble
    assert found["versions"]["torch"] == torch.__version__


def test_a_fast_machine_has_nothing_slow() -> None:
    assert list(slow(FAST)) == []


@pytest.mark.parametrize(
    ("part", "change", "word"),
    [
        (None, {"device": "cpu", "nvidia_driver": False}, "no GPU"),
        (None, {"device": "cpu", "cuda_build": None}, "built without CUDA"),
        (
            None,
            {"device": "cpu", "nvidia_driver": False, "dtype": "fp32", "dtype_reason": "old"},
            "float32: old",
        ),
        (
            None,
            {
                "device": "cpu",
                "nvidia_driver": False,
                "dtype": "bf16",
                "products": {"fp32": 3e11, "bf16": 2e11},
            },
            "multiplies float32 faster",
        ),
        ("threads", {"used": 4, "environment": {"OMP_NUM_THREADS": "4"}}, "12 of 16 cores unused"),
        ("threads", {"used": 32}, "32 threads share 16 cores"),
        ("threads", {"cores_usable": 8, "used": 8}, "may use 8 of 16 cores"),
        ("threads", {"cores_quota": 1.5}, "the time of 1.5 of 16 cores"),
        ("threads", {"cores_load": 20.0}, "a load of 20.0"),
        ("memory", {"free": 2 * 10**9}, "2 GB of memory free"),
        ("memory", {"swapped": 8 * 10**9}, "8 GB of memory are swapped"),
        ("disk", {"downloads": {"free": 10**9}}, "1 GB free where"),
    ],
)
def test_each_slow_thing_is_told(part: str | None, change: dict[str, Any], word: str) -> None:
    changed = FAST | (change if part is None else {part: FAST[part] | change})
    assert any(word in line for line in slow(changed))


@pytest.mark.parametrize("columns", [50, 80])
def test_the_table_fits_a_terminal(columns: int, tmp_path: Path) -> None:
    (seen,) = in_terminal(("doctor",), cwd=tmp_path, columns=columns)
    assert seen.code == 0
    assert max(map(len, seen.screen)) <= columns
    words = " ".join(" ".join(seen.screen).split())
    for label in ("torch", "device", "number format", "threads", "memory", "configuration"):
        assert label in words
