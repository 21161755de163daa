"""A finished storybook: its parts in one folder, its card from what every run recorded."""

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from diffgen import Engine
from diffgen.bench.metrics import psnr
from diffgen.weights.checkpoint import Checkpoint
from scripts.storybook.assemble import SAMPLES, main
from scripts.storybook.scene import world
from scripts.storybook.stream import SceneStream
from scripts.storybook.subject import generate, reconstruction_psnr

STORYBOOK = Path(__file__).parents[2] / "diffgen" / "assets" / "storybook"
CARD = "---\nlicense: MIT\n---\n\n# {0}\n\n| seed | {0} |\n| curve | ![loss](loss.png) |\n"


def run_of(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(CARD.format(name))
    Image.new("RGB", (4, 4)).save(folder / "loss.png")
    return folder


def test_a_storybook_is_put_together(tmp_path: Path) -> None:
    first, second = (run_of(tmp_path / name, name) for name in ("one", "two"))
    about, out = tmp_path / "about.md", tmp_path / "out"
    report, other = tmp_path / "report", tmp_path / "other"
    about.write_text("# storybook\n")
    for folder, count in ((report, 4), (other, 8)):
        folder.mkdir()
        text = f"## The verifier\n\n| place |\n\n## {count} pictures\n\n| 9{count} % |\n"
        (folder / "report.md").write_text(text + "\nIts autoencoder is fine.\n")
        Image.new("RGB", (4, 4)).save(folder / "held-out.png")
    arguments = ["--model", str(STORYBOOK), "--stages", str(first), str(second)]
    arguments += ["--about", str(about), "--reports", str(report), str(other), "--out", str(out)]
    assert main(arguments) == 0
    assert Checkpoint.open(out).tensors.keys() == Checkpoint.open(STORYBOOK).tensors.keys()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: Apache-2.0\n")
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# storybook",
        "## What it knows",
        "## How well it does",
        "### The verifier",
        "### 4 pictures",
        "### 8 pictures",
        "## Pictures and licences",
        "## one",
        "## two",
    ]
    assert "license: MIT" not in card
    assert card.count("Its autoencoder is fine.") == card.count("| place |") == 1
    assert "(loss-2.png)" in card
    names = {path.name for path in out.iterdir()}
    assert {"loss-1.png", "loss-2.png", "held-out.png", "held-out1.png", "samples.png"} <= names
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (4 * 128, 128 * len(SAMPLES) // 4)


def test_each_prompt_has_its_pictures_in_turn() -> None:
    engine = Engine.load("storybook")
    pictures = generate(engine, ["a cat", "a red car"], seed=3, count=2)
    (again,) = generate(engine, ["a red car"], seed=3)
    # Another batch size is another order of summation, in bf16 on processors that have it.
    assert psnr(pictures[2], again) > 38 > 20 > psnr(pictures[3], again)


def test_the_autoencoder_keeps_most_of_a_scene(tmp_path: Path) -> None:
    stream = SceneStream(world("medium", own_only=True), 128, 5, tmp_path)
    assert 20 < reconstruction_psnr(Engine.load("storybook"), stream, batches=1) < 45
