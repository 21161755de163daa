"""Faults while a model is trained."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

from common import PATIENCE, ROOT, expect, expect_one_line, finish, killed, lines_of, run, start
from PIL import Image

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
log_every = 1
batch_size = 3
device = "cpu"
precision = "fp32"
checkpoint_every = 5
validate_every = 30
"""


# A tiny network of storybook's latents, whose cache two runs are to share.
CACHED = (
    *("--set", "data.size=64", "--set", "data.cache=cache", "--set", "run.steps=5"),
    *("--set", "model.autoencoder=storybook"),
    *("--set", "model.unet.in_channels=8", "--set", "model.unet.out_channels=8"),
)
KILLS = 3


def kill_train(folder: Path) -> str:
    """Killed again and again and resumed, training ends with the model of an undisturbed run."""
    whole, lines = _undisturbed()
    _prepare(folder)
    broken, train = folder / "broken", ("train", "recipe.toml", "-o", "broken")
    metrics = broken / "metrics.jsonl"
    kills = 0
    for _ in range(KILLS):
        if not _model(broken):
            words = (*train, *_resumed(broken))
            kills += killed(folder, *words, progress=lambda: lines_of(metrics), whole=lines)
    if not _model(broken):
        run(folder, *train, *_resumed(broken))
    expect(_model(broken) == whole, "the models differ")
    return f"equal to the bit after {kills} kills"


def two_train(folder: Path) -> str:
    """A second process in the folder of a run is refused in one line."""
    _prepare(folder)
    first = start(folder, "train", "recipe.toml", "-o", "run", "--set", "run.steps=20000")
    deadline = time.monotonic() + PATIENCE
    while not (folder / "run" / "recipe.toml").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        second = finish(start(folder, "train", "recipe.toml", "-o", "run", "--resume"))
        expect_one_line(*second, says=str(first.pid))
    finally:
        first.kill()
        first.communicate()
    return "the second was refused, naming the first"


def two_cache(folder: Path) -> str:
    """Two runs fill one cache: both end with the same model, or one is refused in one line."""
    _prepare(folder)
    runs = {name: ("train", "recipe.toml", "-o", name, *CACHED) for name in ("one", "other")}
    both = {name: start(folder, *words) for name, words in runs.items()}
    ends = {name: finish(process) for name, process in both.items()}
    refused = [name for name, (code, _) in ends.items() if code]
    expect(len(refused) < 2, f"both failed: {ends}")
    for name in refused:
        holder = next(process for other, process in both.items() if other != name)
        expect_one_line(*ends[name], says=f"in use by process {holder.pid}")
        run(folder, *runs[name])
    expect(bool(_model(folder / "one")), "no model")
    expect(_model(folder / "one") == _model(folder / "other"), "the models differ")
    return "one refused, naming the other" if refused else "both went through"


@cache
def _undisturbed() -> tuple[dict[str, str], int]:
    """The model of a run that nobody kills, and how many lines of figures it writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        run(folder, "train", "recipe.toml", "-o", "whole")
        return _model(folder / "whole"), lines_of(folder / "whole" / "metrics.jsonl")


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
