"""Faults while a model is trained, and while samplers are measured."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

from common import ROOT, expect, expect_one_line, finish, killed, run, start, whole_pictures
from PIL import Image

SWEEP = (
    *("sample-steps", "a barn", "--samplers", "ddim,dpmpp_2m", "--schedules", "default"),
    *("--steps", "2,3", "--seeds", "0", "--reference", "6", "--repeats", "1", "-o", "report"),
)
RECIPE = """
target = "diffusion"
name = "squares"
license = "CC0-1.0"
data = { path = "pictures", size = 8, validation = 4 }
optimizer = { lr = 1e-3, warmup = 2 }
samples = { every = 1000, steps = 2 }
[model]
tokenizer = "TOKENIZER"
train_text_encoder = true
schedule = { prediction = "v" }
text = { vocab_size = 950, width = 16, layers = 1, num_heads = 2, mlp_width = 32, max_tokens = 16 }
[model.unet]
in_channels = 3
out_channels = 3
channels = [8, 16]
blocks = [1, 1]
depth = [0, 1]
num_heads = [1, 2]
context_dim = 16
norm_groups = 4
[run]
steps = 60
batch_size = 3
device = "cpu"
precision = "fp32"
checkpoint_every = 5
validate_every = 30
"""


def kill_train(folder: Path) -> str:
    """Killed again and again and resumed, training ends with the model of an undisturbed run."""
    _prepare(folder)
    train = ("train", "recipe.toml", "-o")
    began = time.monotonic()
    run(folder, *train, "whole")
    within = time.monotonic() - began
    kills = sum(
        killed(folder, *train, "broken", *_resumed(folder / "broken"), within=within)
        for _ in range(3)
    )
    if not _model(folder / "broken"):
        run(folder, *train, "broken", *_resumed(folder / "broken"))
    expect(_model(folder / "broken") == _model(folder / "whole"), "the models differ")
    return f"equal to the bit after {kills} kills"


def two_train(folder: Path) -> str:
    """A second process in the folder of a run is refused in one line."""
    _prepare(folder)
    first = start(folder, "train", "recipe.toml", "-o", "run", "--set", "run.steps=2000")
    deadline = time.monotonic() + 60
    while not (folder / "run").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    try:
        second = finish(start(folder, "train", "recipe.toml", "-o", "run", "--resume"))
        expect_one_line(*second, says=str(first.pid))
    finally:
        first.kill()
        first.communicate()
    return "the second was refused, naming the first"


def kill_sweep(folder: Path) -> str:
    """Killed at a random time and started again, sample-steps ends with a whole report."""
    ended = killed(folder, *SWEEP, within=8.0)
    run(folder, *SWEEP)
    results = json.loads((folder / "report" / "results.json").read_text())
    expect(bool(results), "no results")
    expect((folder / "report" / "report.html").is_file(), "no report")
    return f"{'killed' if ended else 'done'}; then whole, {whole_pictures(folder)} pictures"


def _resumed(run_folder: Path) -> tuple[str, ...]:
    """`--resume` once there is a checkpoint; what has none begins anew."""
    if any((run_folder / "checkpoints").glob("step-*.pt")):
        return ("--resume",)
    shutil.rmtree(run_folder, ignore_errors=True)
    return ()


def _prepare(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 4):
        Image.new("RGB", (8, 8), colour).save(folder / "pictures" / f"{number}.png")
        (folder / "pictures" / f"{number}.txt").write_text(f"a {colour} square")
    tokenizer = (ROOT / "tests" / "vocabulary").as_posix()
    (folder / "recipe.toml").write_text(RECIPE.replace("TOKENIZER", tokenizer))


def _model(run_folder: Path) -> dict[str, str]:
    """The hashes of a finished model's weights; empty while there is none."""
    files = sorted((run_folder / "model").rglob("*.safetensors"))
    return {f.name + f.parent.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
