"""Weights that change while they are in use: refused, or not noticed at all."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.errors import WeightsError
from diffgen.weights import reading
from diffgen.weights.files import open_tensors, save_tensors

FILES = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
DRAW = """
import hashlib, os, sys
from pathlib import Path
from diffgen import Engine, GenerateRequest

engine = Engine.load(sys.argv[1], device="cpu", dtype=sys.argv[2])
request = GenerateRequest(prompts=["a barn"], steps=2, width=32, height=32)

def spoil(info):
    for path in Path(sys.argv[1]).glob("*/*.safetensors"):
        if sys.argv[3] == "truncated":
            os.truncate(path, 100)
        else:
            path.write_bytes(bytes(path.stat().st_size))

for on_step in (lambda info: None, spoil):
    (picture,) = engine.generate(request, on_step=on_step)
    print(hashlib.sha256(picture.image.tobytes()).hexdigest())
"""


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    """In place, with the size and the time of before."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(b"\xff" * 100)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """By another file of the same size and time, as `mv` and `rsync -t` do."""
    other = path.with_suffix(".new")
    shutil.copy2(path, other)
    overwritten(other)
    os.replace(other, path)


CHANGES = (truncated, overwritten, replaced)
Change = Callable[[Path], None]


@pytest.fixture
def folder(sd1, tmp_path: Path) -> Path:
    return shutil.copytree(sd1.folder, tmp_path / "model")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changed_after_its_header_was_read(
    folder: Path, name: str, change: Change
) -> None:
    model = Model.open(folder)
    change(folder / name)
    with pytest.raises(WeightsError, match=f"{name} changed while it was read; try again"):
        Engine.load(model, device="cpu", dtype="fp32")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_file_that_changes_halfway(
    folder: Path, dtype: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tensors before are read, those behind it are not."""
    read = 0

    def spoiled(*place: object) -> torch.Tensor:
        nonlocal read
        read += 1
        if read == 100:
            change(folder / FILES[0])
        return reading.filled(*place)

    model = Model.open(folder)
    monkeypatch.setattr("diffgen.weights.files.filled", spoiled)
    with pytest.raises(WeightsError, match=f"{FILES[0]} changed while it was read"):
        Engine.load(model, device="cpu", dtype=dtype)
    assert read >= 100


def test_a_file_that_was_written_a_moment_ago(tmp_path: Path) -> None:
    """A write within the same tick of the clock leaves no trace, so reading begins after it."""
    path = tmp_path / "a.safetensors"
    for _ in range(20):
        save_tensors({"a": torch.zeros(1000)}, path, {})
        tensors = open_tensors([path])
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\1" * 4)
        with pytest.raises(WeightsError, match="changed while it was read"):
            tensors["a"]


@pytest.mark.parametrize(("dtype", "how"), [("fp32", "truncated"), ("bf16", "overwritten")])
def test_a_loaded_model_needs_its_files_no_more(folder: Path, dtype: str, how: str) -> None:
    """In a process of its own: to look at a mapped file that was cut short ends it (SIGBUS)."""
    done = subprocess.run(
        [sys.executable, "-c", DRAW, folder, dtype, how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    undisturbed, disturbed = done.stdout.split()
    assert undisturbed == disturbed
