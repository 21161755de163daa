"""scripts/fuzz.py runs, and sees each kind of fault where there is one."""

import importlib.util
import os
import runpy
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from diffgen.errors import WeightsError

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz.py"
LIMITS = Namespace(seconds=60.0, memory=0.25)


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_a_few_cases(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Here, where torch and diffusers are imported already."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(
        sys, "argv", [str(SCRIPT), "--cases", "14", "--seed", "7", "--seconds", "120"]
    )
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    out, err = capfd.readouterr()
    assert left.value.code == 0, out + err
    assert "slowest" in out


def refuse(path: Path, text: str) -> None:
    raise WeightsError(text.format(path))


ENDS = {
    "drawn": lambda path: None,
    "refused": lambda path: refuse(path, "{} is damaged"),
    "KeyError": lambda path: {}["x"],
    "names no file": lambda path: refuse(path, "it is damaged"),
    "more than a line": lambda path: refuse(path, "{} is\ndamaged"),
    "did not end in 0.5 s": lambda path: time.sleep(600),
    "killed: -9": lambda path: os.kill(os.getpid(), signal.SIGKILL),
    "MemoryError": lambda path: bytearray(2 << 30),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_told_apart(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    def use(model, stage):
        stage("open")
        ENDS[end](model)

    monkeypatch.setattr(fuzz, "use", use)
    patience = Namespace(**vars(LIMITS) | ({"seconds": 0.5} if "0.5 s" in end else {}))
    outcome = fuzz.run_apart(tmp_path, patience)
    if end in ("drawn", "refused"):
        assert outcome.kind == end
    else:
        assert outcome.kind == "fault"
        assert end in outcome.text
