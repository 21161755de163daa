import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import VAE, draw_squares, make_recipe, spoil

from diffgen.errors import ConfigError, DeviceError
from diffgen.train import dist
from diffgen.train.data.report import FAILED
from diffgen.train.recipe.tables import to_toml

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
CHANGES = {
    "run.steps": 6,
    "run.accumulate": 2,
    "run.validate_every": 3,
    "run.checkpoint_every": 3,
    "run.save_dtype": "fp32",
    "data.caption_dropout": 0.25,
    "data.validation": 5,  # three batches of 2: the second process runs out of them first
    "samples.prompts": ["a red square"],
    "samples.every": 3,
}
LAYOUTS = {
    "ddp": {},
    "fsdp": {"run.parallel": "fsdp", "run.gradient_checkpointing": True},
}


def train(recipe, folder, *launcher, options=()):
    file = folder.with_suffix(".toml")
    file.write_text(to_toml(recipe))
    command = [sys.executable, *launcher, "-m", "diffgen", "train", str(file), "-o", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def checkpoint_in(folder, step=6):
    return torch.load(folder / "checkpoints" / f"step-{step:08}.pt", weights_only=True)


def flat(value, prefix=""):
    """The entries of nested dicts by their path."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, e in value.items() for k, v in flat(e, f"{prefix}/{name}").items()}


@pytest.fixture(scope="module")
def runs(squares, tmp_path_factory):
    """The folders of one process alone, and of two by each layout, with the same pictures."""
    place = tmp_path_factory.mktemp("runs")
    train(make_recipe(squares, {**CHANGES, "run.batch_size": 4}), place / "alone")
    for name, layout in LAYOUTS.items():
        recipe = make_recipe(squares, {**CHANGES, **layout, "run.batch_size": 2})
        assert train(recipe, place / name, *TORCHRUN) == [str(place / name / "model")]
    return place


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_are_one_with_twice_the_batch(runs, layout):
    alone, together = rows_in(runs / "alone"), rows_in(runs / layout)
    assert [row["step"] for row in together] == [row["step"] for row in alone]
    for key in ("loss", "grad_norm", "held_out_loss"):
        first, second = ([row[key] for row in rows if key in row] for rows in (alone, together))
        assert first
        # Sums in another order, then six steps of AdamW, which magnifies tiny gradients.
        assert second == pytest.approx(first, rel=1e-4)


def test_the_card_names_the_damage_that_any_process_met(tmp_path):
    data = draw_squares(tmp_path / "squares")
    for k in (3, 6, 9, 12):
        spoil(data / f"{k:02}.png")
    changes = {"run.steps": 6, "data.validation": 0, "run.save_dtype": "fp32"}
    train(make_recipe(data, {**changes, "run.batch_size": 2}), tmp_path / "two", *TORCHRUN)
    card = (tmp_path / "two" / "model" / "README.md").read_text()
    assert f"| {FAILED} | 4 (03.png, 06.png, 09.png, 12.png) |" in card
    assert f"| data | {data}: 12 pictures, " in card


def test_a_checkpoint_is_the_same_file_whatever_the_layout(runs):
    whole, shards = (flat(checkpoint_in(runs / layout)) for layout in LAYOUTS)
    tensors = {name for name, value in whole.items() if isinstance(value, torch.Tensor)}
    assert any("exp_avg" in name for name in tensors)
    assert shards.keys() == whole.keys()
    for name in tensors:
        assert type(shards[name]) is torch.Tensor
        assert (shards[name].shape, shards[name].dtype) == (whole[name].shape, whole[name].dtype)
        if name.startswith(("/module/", "/ema/")):
            # Weights moved by up to 6 x 1e-3; where a gradient is near zero AdamW takes its sign.
            torch.testing.assert_close(shards[name], whole[name], rtol=0, atol=5e-4)


def test_the_exported_model_is_the_average(runs):
    average = checkpoint_in(runs / "fsdp")["ema"]["average"]
    for part, file in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        exported = load_file(runs / "fsdp" / "model" / part / f"{file}.safetensors")
        alone = load_file(runs / "alone" / "model" / part / f"{file}.safetensors")
        name = {"unet": "unet", "text_encoder": "encoders.0"}[part]
        assert exported.keys() == alone.keys()
        assert all(torch.equal(exported[key], average[f"{name}.{key}"]) for key in exported)
    assert (runs / "fsdp" / "samples" / "step-00000003.png").exists()


def test_sharded_training_goes_on_bit_for_bit(squares, runs, tmp_path):
    shutil.copytree(runs / "fsdp", tmp_path / "fsdp")
    (tmp_path / "fsdp" / "checkpoints" / "step-00000006.pt").unlink()
    recipe = make_recipe(squares, {**CHANGES, **LAYOUTS["fsdp"], "run.batch_size": 2})
    train(recipe, tmp_path / "fsdp", *TORCHRUN, options=["--resume"])
    for key in ("loss", "held_out_loss"):
        first, second = (
            {row["step"]: row[key] for row in rows_in(folder) if key in row}
            for folder in (runs / "fsdp", tmp_path / "fsdp")
        )
        assert second == first
    first, second = (flat(checkpoint_in(folder)) for folder in (runs / "fsdp", tmp_path / "fsdp"))
    for name, value in first.items():
        same = isinstance(value, torch.Tensor) and torch.equal(value, second[name])
        assert same or not name.startswith(("/module/", "/ema/average/", "/optimizer/state/"))


def test_half_precision_is_autocast_in_both_layouts(squares, tmp_path):
    rows = []
    for name in LAYOUTS:
        changes = {"run.steps": 3, "run.precision": "bf16", "run.parallel": name}
        changes |= {"optimizer.lr": 1e-2, "optimizer.warmup": 0, "data.validation": 0}
        train(make_recipe(squares, changes), tmp_path / name, *TORCHRUN)
        rows.append([row["loss"] for row in rows_in(tmp_path / name)])
    # Equal here; weights that are bf16 themselves are off by 4.5e-4 in the third step (measured).
    assert rows[1] == pytest.approx(rows[0], rel=1e-5)


def test_a_discriminator_learns_from_all_processes(squares, tmp_path):
    """Its gradients, and those behind the adaptive weight, are those of the whole batch."""
    changes = {
        "target": "autoencoder",
        "model": {"vae": VAE},
        "data.size": 24,
        "run.steps": 3,
        "autoencoder.adversarial": 0.5,
        "autoencoder.adversarial_start": 1,
    }
    train(make_recipe(squares, {**changes, "run.batch_size": 4}), tmp_path / "alone")
    train(make_recipe(squares, {**changes, "run.batch_size": 2}), tmp_path / "two", *TORCHRUN)
    alone, together = rows_in(tmp_path / "alone"), rows_in(tmp_path / "two")
    for key in ("loss", "adversarial", "discriminator"):
        first, second = ([row[key] for row in rows if key in row] for rows in (alone, together))
        assert first[-1] != 0
        assert second == pytest.approx(first, rel=1e-4)  # as above


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run.compile": True}, r"run\.compile does not go with run\.parallel"),
        ({"run.channels_last": True}, r"run\.channels_last does not go with run\.parallel"),
    ],
)
def test_what_cannot_be_sharded_is_refused(squares, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(squares, {**changes, "run.parallel": "fsdp"})


ONE_OF_TWO = """
import os, sys, time
from datetime import timedelta
from diffgen.errors import DiffgenError
from diffgen.train import dist
case = sys.argv[1]
dist.PATIENCE = timedelta(seconds=3 if case == "silent" else 600)
try:
    with dist.open_world("cpu") as world:
        world.wait()
        if case == "dies" and not world.first:
            os._exit(3)
        if case == "fails" and not world.first:
            raise DiffgenError("the disk is full")
        if case == "silent" and not world.first:
            time.sleep(8)
        if case == "late" and world.first:
            time.sleep(1)
        if case != "late":
            world.wait()
except DiffgenError as error:
    print(error)
"""


@pytest.mark.parametrize("case", ["dies", "fails", "silent", "late"])
def test_a_lost_process_is_one_line_for_the_others(tmp_path, case):
    """In a second where it died; and one that leaves first does not break the other's end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, case],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    outs = [process.communicate(timeout=120) for process in processes]
    assert processes[0].returncode == 0, outs[0][1]
    assert "Traceback" not in outs[0][1] + outs[1][1]
    if case == "late":
        assert outs[0][0] == outs[1][0] == ""
        return
    line = outs[0][0].strip()
    assert line.startswith("another process of this run ended or stopped to answer (")
    assert line.count("\n") == 0
    if case == "fails":
        assert outs[1][0] == "the disk is full\n"


def test_a_signal_to_torchrun_leaves_one_checkpoint_and_one_line(squares, tmp_path):
    changes = {"run.steps": 100_000, "run.checkpoint_every": 100_000, "data.validation": 0}
    file, folder = tmp_path / "run.toml", tmp_path / "run"
    file.write_text(to_toml(make_recipe(squares, changes)))
    own = ["-m", "diffgen", "train", str(file), "-o", str(folder)]
    with subprocess.Popen(
        [sys.executable, *TORCHRUN, "--max-restarts", "1", *own],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step 3/"):
                process.terminate()
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name >= "step-00000003.pt"
    (line,) = (line for line in said if "this goes on" in line)
    torchrun = shlex.join([sys.executable, *TORCHRUN, "--max-restarts", "1", *own])
    assert line == f"stopped by SIGTERM; this goes on: {torchrun} --resume\n"


def test_waiting_outlasts_torch_s_own_half_hour(monkeypatch):
    """A cache is filled and a preview drawn by some while the rest wait."""
    asked = {}
    monkeypatch.setattr(dist.dist, "init_process_group", lambda name, **k: asked.update(k))
    monkeypatch.setattr(dist.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist.dist, "barrier", lambda: None)
    monkeypatch.setattr(dist.dist, "destroy_process_group", lambda: None)
    with dist.open_world("cpu", {"WORLD_SIZE": "2"}) as world:
        assert (world.rank, world.size) == (1, 2)
    assert asked["timeout"].total_seconds() >= 12 * 3600


def test_a_process_without_a_gpu_of_its_own_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(dist, "pick_device", lambda name: torch.device("cuda"))
    variables = {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    with (
        pytest.raises(DeviceError, match="there are 1; start at most 1"),
        dist.open_world("cuda", variables),
    ):
        pass
