"""What every fault needs: diffgen as a program, and looking at what it left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
GENERATE = ("generate", "a barn", "a cat", "--steps", "2", "--seed", "1")


class Failed(Exception):
    """What a fault broke."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise Failed unless something holds; unlike assert, under python -O too."""
    if not holds:
        raise Failed(otherwise)


def start(folder: Path, *words: str, **options: object) -> subprocess.Popen[bytes]:
    """Start `diffgen WORDS` in a folder; its output can be read at the end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-m", "diffgen", *words]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes)  # type: ignore[call-overload]


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit code and stderr."""
    errors = process.communicate(timeout=600)[1]
    return process.returncode, (errors or b"").decode()


def run(folder: Path, *words: str) -> None:
    """`diffgen WORDS`, which is to succeed."""
    code, errors = finish(start(folder, *words))
    expect(code == 0, f"exit code {code}: {errors}")


def killed(folder: Path, *words: str, within: float) -> bool:
    """Start diffgen and kill it without warning at a random time; False if it was done before."""
    process = start(folder, *words)
    time.sleep(random.uniform(0.0, within))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode != 0


def whole_pictures(folder: Path) -> int:
    """How many pictures there are, each of which opens to its last byte."""
    paths = [path for path in folder.rglob("*.png") if not path.name.startswith(".")]
    for path in paths:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
        except OSError as error:
            raise Failed(f"{path.name}: {error}") from error
    return len(paths)


def expect_one_line(code: int, errors: str, *, says: str) -> None:
    """Exit code 1 and one error line, with the cause."""
    lines = [line for line in errors.splitlines() if line.startswith(("error:", "Traceback"))]
    expect(code == 1 and len(lines) == 1 and says in lines[0], f"exit code {code}: {errors}")
