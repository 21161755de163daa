"""The faults see what they are to see. Their programs here are small scripts, not diffgen."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

FAULTS = Path(__file__).parents[2] / "scripts" / "faults"
WRITES = """
import sys, time
from pathlib import Path
for number in range(int(sys.argv[1])):
    with Path("lines.txt").open("a") as file:
        file.write("x\\n")
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """scripts/faults/run.py, with its neighbours importable."""
    monkeypatch.syspath_prepend(str(FAULTS))
    names = ("common", "generating", "sweeping", "training", "run")
    yield importlib.import_module("run")
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def common(faults: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`diffgen WORDS` runs WRITES instead."""
    module = importlib.import_module("common")
    popen = module.subprocess.Popen

    def write(command: list[str], **options: object) -> object:
        return popen([sys.executable, "-c", WRITES, *command[3:]], **options)

    monkeypatch.setattr(module.subprocess, "Popen", write)
    return module


def test_every_fault_is_described(faults: ModuleType) -> None:
    page = (FAULTS / "README.md").read_text()
    assert [name for name in faults.FAULTS if f"| `{name}` |" not in page] == []


def test_a_process_is_killed_at_its_work_and_not_before(common: ModuleType, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    for _ in range(5):
        lines.unlink(missing_ok=True)
        begun = common.lines_of(lines)
        assert common.killed(
            tmp_path, "1000", "0.001", progress=lambda: common.lines_of(lines), whole=20
        )
        assert begun <= common.lines_of(lines) < 1000


def test_a_process_that_is_done_was_not_killed(common: ModuleType, tmp_path: Path) -> None:
    assert not common.killed(tmp_path, "2", "0", progress=lambda: 0, whole=10_000)
    assert common.lines_of(tmp_path / "lines.txt") == 2


def test_a_cut_picture_is_seen(common: ModuleType, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    assert common.whole_pictures(tmp_path) == 1
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / ".part.png").write_bytes(content[:100])  # being written: no name of its own
    assert common.whole_pictures(tmp_path) == 1
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(common.Failed, match=r"cut\.png"):
        common.whole_pictures(tmp_path)


@pytest.mark.parametrize(
    ("code", "errors", "holds"),
    [
        (1, "note: x\nerror: its folder is gone\n", True),
        (0, "error: its folder is gone\n", False),
        (1, "error: something else\n", False),
        (1, "error: its folder is gone\nerror: again\n", False),
        (1, "Traceback (most recent call last)\nerror: its folder is gone\n", False),
    ],
)
def test_one_line_is_one_line(common: ModuleType, code: int, errors: str, holds: bool) -> None:
    if holds:
        common.expect_one_line(code, errors, says="folder is gone")
    else:
        with pytest.raises(common.Failed):
            common.expect_one_line(code, errors, says="folder is gone")


def test_outcomes_are_counted_and_broken_ones_end_in_1(
    faults: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = importlib.import_module("common")
    outcomes = iter(["fine", "fine", common.Failed("a\nb")])

    def fault(folder: Path) -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setitem(faults.FAULTS, "kill-sweep", fault)
    monkeypatch.setattr(sys, "argv", ["run.py", "kill-sweep", "--trials", "3"])
    assert faults.main() == 1
    out = capsys.readouterr().out
    assert "| kill-sweep | 2 | fine |\n| kill-sweep | 1 | BROKEN: a b |\n" in out


def test_results_are_compared_without_what_a_clock_decides(faults: ModuleType) -> None:
    sweeping = importlib.import_module("sweeping")

    def form(seconds: object, psnr: float) -> object:
        cell = {"psnr": {"mean": psnr}, "seconds": seconds, "decode_seconds": 0.1}
        return sweeping._form({"created": "now", "cells": [cell]})

    assert form({"median": 1.0}, 30.0) == form({"median": 2.0, "low": 1.0}, 30.0)
    assert form({"median": 1.0}, 30.0) != form({"median": 1.0}, 30.1)
    assert form({"median": 1.0}, 30.0) != form(None, 30.0)
