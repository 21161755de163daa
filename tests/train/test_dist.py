import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training import VAE, Listener, draw_squares, make_recipe, spoil

from diffgen.errors import ConfigError, DeviceError
from diffgen.train import dist, run
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


SETTINGS = {**os.environ, "OMP_NUM_THREADS": "1"}
# One process of two that train by several recipes, each with a port to meet at.
ONE_OF_A_PAIR = """
import json, os, shutil, sys
from diffgen import cli
for port, arguments, copy in json.loads(sys.argv.pop()):
    os.environ["MASTER_PORT"] = str(port)
    sys.argv[1:] = ["train", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
    if copy and os.environ["RANK"] == "0":
        last = shutil.ignore_patterns("step-00000006.pt")
        shutil.copytree(arguments[2], copy, ignore=last)
"""


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def written(recipe, folder):
    file = folder.with_suffix(".toml")
    file.write_text(to_toml(recipe))
    return [str(file), "-o", str(folder)]


def train_alone(recipe, folder):
    run.train(recipe, folder, resume=False, reporter=Listener())


def train_in_pairs(recipes, *, resumed):
    """Two processes train by each recipe, by folder, as torchrun would have them do.

    The `resumed` folders are made from others, without their last checkpoint. As two processes meet
    at the beginning of every run, there must be one between the two.
    """
    ports = free_ports(len(recipes))
    orders = [written(recipe, folder) for folder, recipe in recipes.items()]
    copies = {source: copy for copy, source in resumed.items()}
    jobs = json.dumps(
        [
            (port, [*order, *(["--resume"] if folder in resumed else [])], copies.get(folder))
            for port, order, folder in zip(ports, orders, recipes, strict=True)
        ],
        default=str,
    )
    shared = {**SETTINGS, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_A_PAIR, jobs],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**shared, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    outs = [process.communicate(timeout=400) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outs
    assert outs[0][0].splitlines() == [str(folder / "model") for folder in recipes]
    assert outs[1][0] == ""


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def checkpoint_in(folder, step=6):
    return torch.load(folder / "checkpoints" / f"step-{step:08}.pt", weights_only=True)


def flat(value, prefix=""):
    """The entries of nested dicts by their path."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, e in value.items() for k, v in flat(e, f"{prefix}/{name}").items()}


HALF = {
    "run.steps": 3,
    "run.precision": "bf16",
    "optimizer.lr": 1e-2,
    "optimizer.warmup": 0,
    "data.validation": 0,
}
ADVERSARIAL = {
    "target": "autoencoder",
    "model": {"vae": VAE},
    "data.size": 24,
    "run.steps": 3,
    "autoencoder.adversarial": 0.5,
    "autoencoder.adversarial_start": 1,
}


@pytest.fixture(scope="module")
def runs(squares, tmp_path_factory):
    """The folders of all runs: of one process alone, and of two with half the batch each.

    The two train by all recipes in turn, as most of their time goes into starting.
    """
    place = tmp_path_factory.mktemp("runs")
    damaged = draw_squares(place / "damaged pictures")
    for k in (3, 6, 9, 12):
        spoil(damaged / f"{k:02}.png")
    train_alone(make_recipe(squares, {**CHANGES, "run.batch_size": 4}), place / "alone")
    train_alone(make_recipe(squares, {**ADVERSARIAL, "run.batch_size": 4}), place / "judged alone")
    pairs = {
        **{name: (squares, {**CHANGES, **layout}) for name, layout in LAYOUTS.items()},
        **{f"half {name}": (squares, {**HALF, "run.parallel": name}) for name in LAYOUTS},
        "judged": (squares, ADVERSARIAL),
        "damaged": (damaged, {"run.steps": 6, "data.validation": 0}),
        "fsdp, resumed": (squares, {**CHANGES, **LAYOUTS["fsdp"]}),
    }
    train_in_pairs(
        {
            place / name: make_recipe(data, {"run.batch_size": 2, **changes})
            for name, (data, changes) in pairs.items()
        },
        resumed={place / "fsdp, resumed": place / "fsdp"},
    )
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


def test_the_card_names_the_damage_that_any_process_met(runs):
    card = (runs / "damaged" / "model" / "README.md").read_text()
    assert f"| {FAILED} | 4 (03.png, 06.png, 09.png, 12.png) |" in card
    assert f"| data | {runs / 'damaged pictures'}: 12 pictures, " in card


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


def test_sharded_training_goes_on_bit_for_bit(runs):
    both = (runs / "fsdp", runs / "fsdp, resumed")
    for key in ("loss", "held_out_loss"):
        first, second = (
            {row["step"]: row[key] for row in rows_in(folder) if key in row} for folder in both
        )
        assert second == first
    first, second = (flat(checkpoint_in(folder)) for folder in both)
    for name, value in first.items():
        same = isinstance(value, torch.Tensor) and torch.equal(value, second[name])
        assert same or not name.startswith(("/module/", "/ema/average/", "/optimizer/state/"))


def test_half_precision_is_autocast_in_both_layouts(runs):
    first, second = ([row["loss"] for row in rows_in(runs / f"half {name}")] for name in LAYOUTS)
    # Equal here; weights that are bf16 themselves are off by 4.5e-4 in the third step (measured).
    assert second == pytest.approx(first, rel=1e-5)


def test_a_discriminator_learns_from_all_processes(runs):
    """Its gradients, and those behind the adaptive weight, are those of the whole batch."""
    alone, together = rows_in(runs / "judged alone"), rows_in(runs / "judged")
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


# Each case with two processes that are forked where torch is there already, all at a time.
PAIRS = """
import os, sys, time
from datetime import timedelta
from diffgen.errors import DiffgenError
from diffgen.train import dist, run

def one_of_two(case):
    dist.PATIENCE = timedelta(seconds=3 if case == "silent" else 600)
    try:
        with dist.open_world("cpu") as world:
            world.wait()
            if case == "dies" and not world.first:
                os._exit(3)
            if case == "fails" and not world.first:
                raise DiffgenError("the disk is full")
            if case == "silent" and not world.first:
                for _ in range(1200):  # until the other one has given up
                    if os.path.getsize("silent-0.out"):
                        break
                    time.sleep(0.05)
            if case == "late" and world.first:
                time.sleep(1)
            if case != "late":
                world.wait()
    except DiffgenError as error:
        print(error)

os.environ.update(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
children = []
for case, port in zip(sys.argv[1::2], sys.argv[2::2]):
    for rank in "01":
        os.environ.update(MASTER_PORT=port, RANK=rank)
        children.append(os.fork())
        if not children[-1]:
            for stream, end in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{case}-{rank}.{end}", os.O_WRONLY | os.O_CREAT), stream)
            one_of_two(case)
            sys.exit()
for child in children[::2]:
    assert os.waitpid(child, 0)[1] == 0, children
for child in children[1::2]:
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """The folder of what the processes of all cases print."""
    folder = tmp_path_factory.mktemp("lost")
    cases = ["dies", "fails", "silent", "late"]
    words = [word for case, port in zip(cases, free_ports(4), strict=True) for word in (case, port)]
    done = subprocess.run(
        [sys.executable, "-c", PAIRS, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=SETTINGS,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + "".join(
        path.read_text() for path in sorted(folder.glob("*.err"))
    )
    return folder


@pytest.mark.parametrize("case", ["dies", "fails", "silent", "late"])
def test_a_lost_process_is_one_line_for_the_others(lost, case):
    """In a second where it died; and one that leaves first does not break the other's end."""
    outs = [(lost / f"{case}-{rank}.out").read_text() for rank in range(2)]
    assert not any("Traceback" in (lost / f"{case}-{rank}.err").read_text() for rank in range(2))
    if case == "late":
        assert outs == ["", ""]
        return
    line = outs[0].strip()
    assert line.startswith("another process of this run ended or stopped to answer (")
    assert line.count("\n") == 0
    if case == "fails":
        assert outs[1] == "the disk is full\n"


def test_a_signal_to_torchrun_leaves_one_checkpoint_and_one_line(squares, tmp_path):
    changes = {"run.steps": 100_000, "run.checkpoint_every": 100_000, "data.validation": 0}
    folder = tmp_path / "run"
    own = ["-m", "diffgen", "train", *written(make_recipe(squares, changes), folder)]
    with subprocess.Popen(
        [sys.executable, *TORCHRUN, "--max-restarts", "1", *own],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=SETTINGS,
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
