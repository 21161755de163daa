"""What a command imports: everything before a request is understood is light."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOADED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\w+)", re.MULTILINE)
HEAVY = {"transformers", "diffusers", "scipy", "matplotlib"}


def packages(*arguments: str, code: int = 0) -> set[str]:
    """The top-level packages that a command imports in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "diffgen", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    found = set(LOADED.findall(done.stderr))
    assert {"diffgen", "typer"} <= found  # the probe works
    return found


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 0),
        (("--help",), 0),
        (("--version",), 0),
        (("generate", "--help"), 0),
        (("samplers",), 0),
        (("models",), 0),
        (("config",), 0),
        (("inspect", "storybook"), 0),
        (("pull", "storybook"), 2),
        (("convert", "--help"), 0),
        (("genrate",), 2),
        (("generate",), 2),
        (("generate", "x", "--steps", "0"), 2),
        (("generate", "x", "-s", "eulr"), 2),
        (("generate", "x", "-W", "65"), 2),
        (("generate", "x", "-m", "nothing"), 2),
    ],
)
def test_light_commands_load_no_torch(arguments: tuple[str, ...], code: int) -> None:
    assert not packages(*arguments, code=code) & {"torch", "numpy", *HEAVY}


def test_generating_loads_torch_and_nothing_else_that_is_heavy(tmp_path: Path) -> None:
    found = packages("generate", "red barn", "--steps", "2", "-o", str(tmp_path))
    assert "torch" in found
    assert not found & HEAVY
    assert len(list(tmp_path.iterdir())) == 1
