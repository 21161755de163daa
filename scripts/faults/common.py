"""What every fault needs: diffgen as a program, killing it, and looking at what it left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
GENERATE = ("generate", "-p", "a barn", "-p", "a cat", "--steps", "2", "--seed", "1")
PATIENCE = 3600.0  # seconds, for a process on a busy machine


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
    errors = process.communicate(timeout=PATIENCE)[1]
    return process.returncode, (errors or b"").decode()


def run(folder: Path, *words: str) -> None:
    """`diffgen WORDS`, which is to succeed."""
    code, errors = finish(start(folder, *words))
    expect(code == 0, f"exit code {code}: {errors}")


def killed(folder: Path, *words: str, progress: Callable[[], int], whole: int) -> bool:
    """Start diffgen and kill it without warning at a random point; False if it was done before.

    `progress` counts what there is of the `whole` that an undisturbed run makes. The point is
    counted in that and not in seconds, which mean nothing on a busy machine.
    """
    process = start(folder, *words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before, since, piece = progress(), time.monotonic(), 0.0
    point = random.randint(before, max(before, whole - 1))
    while process.poll() is None and (now := progress()) < point:
        if now > before:
            piece = (time.monotonic() - since) / (now - before)
            before, since = now, time.monotonic()
        time.sleep(0.002)
    time.sleep(random.uniform(0.0, piece))
    process.send_signal(signal.SIGKILL)
    return process.wait() != 0


def lines_of(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def pictures_in(folder: Path) -> list[Path]:
    """The pictures with names of their own: not those being written."""
    return [path for path in folder.rglob("*.png") if not path.name.startswith(".")]


def whole_pictures(folder: Path) -> int:
    """How many pictures there are, each of which opens to its last byte."""
    paths = pictures_in(folder)
    for path in paths:
        try:
            with Image.open(path, formats=["PNG"]) as image:
                image.load()
        except (OSError, SyntaxError) as error:
            raise Failed(f"{path.name}: {error}") from error
    return len(paths)


def expect_one_line(code: int, errors: str, *, says: str) -> None:
    """Exit code 1 and one error line, with the cause."""
    lines = [line for line in errors.splitlines() if line.startswith(("error:", "Traceback"))]
    expect(code == 1 and len(lines) == 1 and says in lines[0], f"exit code {code}: {errors}")
