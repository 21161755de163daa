"""What a command imports: everything before a request is understood is light."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOADED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\w+)", re.MULTILINE)
HEAVY = {"transformers", "diffusers", "scipy", "matplotlib"}


def packages(*arguments: str) -> set[str]:
    """The top-level packages that a command imports in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "diffgen", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = set(LOADED.findall(done.stderr))
    assert {"diffgen", "typer"} <= found  # the probe works
    return found


# Each command with its exit code.
LIGHT = [
    ((), 0),
    (("--help",), 0),
    (("--version",), 0),
    (("generate", "--help"), 0),
    (("samplers",), 0),
    (("models",), 0),
    (("config",), 0),
    (("inspect", "storybook"), 0),
    (("inspect", "storybook", "--check"), 0),
    (("pull", "storybook"), 2),
    (("convert", "--help"), 0),
    (("genrate",), 2),
    (("generate",), 2),
    (("generate", "x", "--steps", "0"), 2),
    (("generate", "x", "-s", "eulr"), 2),
    (("generate", "x", "-W", "65"), 2),
    (("generate", "x", "-m", "nothing"), 2),
]
RUN_ALL = """
import json, sys
from diffgen import cli
commands, report = json.loads(sys.argv[1]), open(sys.argv[2], "w")
for words in commands:
    sys.argv = ["diffgen", *words]
    try:
        cli.main()
    except SystemExit as ended:
        loaded = sorted({name.partition(".")[0] for name in sys.modules})
        print(json.dumps([ended.code, loaded]), file=report, flush=True)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, list[str]]]:
    """Exit code, and the packages in memory, after each command; all by one process."""
    report = tmp_path_factory.mktemp("loaded") / "report.jsonl"
    words = json.dumps([arguments for arguments, _ in LIGHT])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", RUN_ALL, words, report], cwd=ROOT, check=True, **quiet)
    return [tuple(json.loads(line)) for line in report.read_text().splitlines()]


@pytest.mark.parametrize("number", range(len(LIGHT)), ids=[" ".join(words) for words, _ in LIGHT])
def test_light_commands_load_no_torch(number: int, loaded: list[tuple[int, list[str]]]) -> None:
    code, found = loaded[number]
    assert code == LIGHT[number][1]
    assert {"diffgen", "typer"} <= set(found)
    assert not set(found) & {"torch", "numpy", *HEAVY}


def test_generating_loads_torch_and_nothing_else_that_is_heavy(tmp_path: Path) -> None:
    found = packages("generate", "red barn", "--steps", "2", "-o", str(tmp_path))
    assert "torch" in found
    assert not found & HEAVY
    assert len(list(tmp_path.iterdir())) == 1
