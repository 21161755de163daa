"""A finished storybook: its parts in one folder, its card from what every run recorded."""

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

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
    about, report, out = tmp_path / "about.md", tmp_path / "report", tmp_path / "out"
    about.write_text("# storybook\n")
    report.mkdir()
    (report / "report.md").write_text("## The verifier\n\n| place |\n")
    Image.new("RGB", (4, 4)).save(report / "held-out.png")
    arguments = ["--model", str(STORYBOOK), "--stages", str(first), str(second)]
    arguments += ["--about", str(about), "--report", str(report), "--out", str(out)]
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
        "## Pictures and licences",
        "## one",
        "## two",
    ]
    assert "license: MIT" not in card
    assert "(loss-2.png)" in card
    names = {path.name for path in out.iterdir()}
    assert {"loss-1.png", "loss-2.png", "held-out.png", "samples.png"} <= names
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (4 * 128, 128 * len(SAMPLES) // 4)


def test_each_prompt_has_its_pictures_in_turn() -> None:
    pictures = generate("storybook", ["a cat", "a red car"], seed=3, count=2)
    (again,) = generate("storybook", ["a red car"], seed=3)
    # Another batch size is another order of summation.
    assert max(abs(a - b) for a, b in zip(pictures[2].tobytes(), again.tobytes(), strict=True)) <= 1


def test_the_autoencoder_keeps_most_of_a_scene(tmp_path: Path) -> None:
    stream = SceneStream(world("medium", own_only=True), 128, 5, tmp_path)
    assert 20 < reconstruction_psnr("storybook", stream, batches=1) < 45
