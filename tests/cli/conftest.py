"""`diffgen` in this process, and as one of its own."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import programs
import pytest
from inside import Result, Run
from programs import Process

from diffgen import cli


@pytest.fixture
def diffgen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """diffgen(argument, ...): in this process, for what another would not prove better."""

    def called(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["diffgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Result(left.value.code, *capsys.readouterr())

    return called


@pytest.fixture
def run(diffgen: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(argument, ...): `diffgen generate` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(diffgen, "generate")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """start(argument, ...): `diffgen generate` as a process, which is gone after the test."""
    with ExitStack() as running:

        def begin(*arguments: str, **streams: int) -> Process:
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
            process = programs.start("generate", *arguments, cwd=tmp_path, **streams)
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield begin
