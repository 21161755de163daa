"""Threads sleep after a brief wait, unless the user decided otherwise."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from diffgen.cli.commands import app
from diffgen.cli.threads import CHOICES, settle_threads

COUNT = """
from diffgen.cli.threads import settle_threads
settle_threads({count})
import torch
print(torch.get_num_threads())
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" in sys.modules:
        monkeypatch.setattr(sys.modules["torch"], "set_num_threads", lambda count: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in CHOICES:
        os.environ.pop(name, None)


def test_threads_sleep_after_a_brief_wait() -> None:
    settle_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["GOMP_SPINCOUNT"] == "3000"
    assert os.environ["KMP_BLOCKTIME"] == "0"


@pytest.mark.parametrize("command", ["generate", "sample-steps", "train"])
def test_every_command_settles_them_first(command: str) -> None:
    CliRunner().invoke(app, [command, "--threads", "3"])  # refused: nothing to do
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("name", CHOICES)
def test_what_the_user_chose_stays(name: str) -> None:
    os.environ[name] = "his"
    settle_threads()
    assert {n: os.environ[n] for n in CHOICES if n in os.environ} == {name: "his"}


def test_their_number_is_settled_before_torch_is_there() -> None:
    for count in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", COUNT.format(count=count)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{count}\n"
