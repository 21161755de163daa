"""A closed terminal ends a run with a checkpoint, and the line it prints goes on to the bit."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))

from programs import start
from training import draw_squares, make_recipe

from diffgen.cli.command_line import command_line
from diffgen.cli.sample_steps import GROUPS
from diffgen.train.recipe.tables import to_toml

NAME = 'wüst "🐱" \\n'
CHANGES = {"run.steps": 150, "run.checkpoint_every": 1000, "run.validate_every": 1000, "name": NAME}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    data = draw_squares(tmp_path / "photos 🐱 of 'mine'")
    (data / "00.txt").write_text('a "red" square 🐱', encoding="utf-8")
    recipe = make_recipe(data, {**CHANGES, "samples.prompts": ['a "red" square 🐱']})
    (tmp_path / "my recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    return tmp_path


def weights(model: Path) -> dict[str, bytes]:
    return {str(p.relative_to(model)): p.read_bytes() for p in model.rglob("*.safetensors")}


def test_the_line_of_a_stopped_run_goes_on_to_the_bit(place: Path) -> None:
    words, pipe = ("train", "my recipe.toml"), {"cwd": place, "stderr": subprocess.PIPE}
    with start(*words, "-o", "a run", **pipe, stdout=subprocess.DEVNULL) as stopped:
        assert stopped.stderr
        for line in stopped.stderr:
            if line.startswith("step 3/"):
                stopped.send_signal(signal.SIGHUP)
                break
        *_, last = stopped.stderr.read().splitlines()
        assert stopped.wait() == 128 + signal.SIGHUP
    said, _, line = last.partition("; this goes on: ")
    assert said == "stopped by SIGHUP"
    assert len(list((place / "a run" / "checkpoints").iterdir())) == 1
    subprocess.run(shlex.split(line), cwd=place, check=True, capture_output=True)
    with start(*words, "-o", "whole", **pipe, stdout=subprocess.DEVNULL) as whole:
        whole.communicate()
        assert whole.returncode == 0
    assert weights(place / "a run" / "model") == weights(place / "whole" / "model")


@pytest.mark.parametrize(
    ("program", "environment", "start"),
    [
        ("/not/on/the/path/diffgen", {}, "/not/on/the/path/diffgen"),
        ("/x/diffgen/__main__.py", {}, f"{sys.executable} -m diffgen"),
        (
            "/x/diffgen/__main__.py",
            {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1"},
            "torchrun --nproc-per-node 4 -m diffgen",
        ),
        (
            "/x/diffgen/__main__.py",
            {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2"},
            "torchrun --nnodes 2 --nproc-per-node 8 -m diffgen",
        ),
        (
            "/x/diffgen/__main__.py",
            {
                "TORCHELASTIC_RUN_ID": "none",
                "LOCAL_WORLD_SIZE": "8",
                "GROUP_WORLD_SIZE": "2",
                "GROUP_RANK": "1",
                "MASTER_ADDR": "a",
                "MASTER_PORT": "29500",
            },
            "torchrun --nnodes 2 --node-rank 1 --master-addr a --master-port 29500 "
            "--nproc-per-node 8 -m diffgen",
        ),
    ],
)
def test_the_line_starts_as_the_command_was_started(program, environment, start) -> None:
    arguments = [program, "train", "a b.toml"]
    line = command_line("--resume", arguments=arguments, environment=environment)
    assert line == f"{start} train 'a b.toml' --resume"
    again = command_line("--resume", arguments=[program, "train", "--resume"], environment={})
    assert again.count("--resume") == 1


@pytest.mark.parametrize(
    ("launcher", "start"),
    [
        (
            ["python3", "/v/bin/torchrun", "--rdzv-id", "7", "-m", "diffgen"],
            "torchrun --rdzv-id 7 -m",
        ),
        (["python3", "-m", "torch.distributed.run", "-m", "diffgen"], "python3 -m torch.distri"),
        (["bash", "-c"], "torchrun --nproc-per-node 2 -m"),  # another command than this
    ],
)
def test_torchrun_keeps_its_options(launcher: list[str], start: str) -> None:
    given = ["train", "a.toml"]
    words = [*launcher, *(given if "diffgen" in launcher else ["x"])]
    environment = {"TORCHELASTIC_RUN_ID": "7", "LOCAL_WORLD_SIZE": "2"}
    line = command_line(
        "--resume", arguments=["d", *given], environment=environment, launcher=words
    )
    assert line.startswith(start)
    assert line.endswith(" diffgen train a.toml --resume")


def test_an_option_that_starts_over_is_dropped_and_a_word_is_not() -> None:
    given = ["/no/diffgen", "sample-steps", "--fresh", "a", "--", "--fresh"]
    line = command_line("-q", without="--fresh", arguments=given, environment={})
    assert line == "/no/diffgen sample-steps a -q -- --fresh"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("-p --fresh --fresh", "-p --fresh -q"),
        ("--prompt --fresh -p -- -p -q", "--prompt --fresh -p -- -p -q -q"),
        ("--strict --fresh -o -q a", "--strict -o -q a -q"),
        ("-q --fresh --json", "-q --json"),
        ("-p -p --fresh", "-p -p"),
    ],
)
def test_the_value_of_an_option_stays_whatever_it_looks_like(given: str, line: str) -> None:
    words = ["d", "sample-steps", *given.split()]
    again = command_line(
        *(["-q"] if "-q" in line.split() else []),
        without="--fresh",
        groups=GROUPS,
        arguments=words,
        environment={},
    )
    assert again == f"d sample-steps {line}"
