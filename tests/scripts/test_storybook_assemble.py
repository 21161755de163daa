"""A finished storybook: its parts in one folder, its card from what every run recorded."""

import json
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from diffgen import Engine, GenerateRequest
from diffgen.bench.metrics import psnr
from diffgen.weights.checkpoint import Checkpoint
from scripts.storybook.assemble import SAMPLES, main
from scripts.storybook.scene import world
from scripts.storybook.stream import SceneStream
from scripts.storybook.subject import generate, load, reconstruction_psnr

SIDE = 256  # pixels of its pictures
STORYBOOK = Path(__file__).parents[2] / "diffgen" / "assets" / "storybook"
CARD = """---
license: MIT
---

# {0}

| | |
|---|---|
| data | data/x: 7 pictures, hash 0123 |
| seed | {1} |
| steps | 90 of 8 pictures |

```toml
name = "{0}"
```
"""
MODELS = ("storybook-turbo", str(STORYBOOK))
ABOUT = "# storybook\n\n{samples}\n## Scores\n\n{scores}\n## Runs\n\n{runs}"


def run_of(folder: Path, name: str, seed: int, colour: str) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(CARD.format(name, seed))
    Image.new("RGB", (4, 4), colour).save(folder / "loss.png")
    return folder


def report_of(folder: Path, right: int) -> Path:
    row = {"category": "place", "right": right, "total": 10, "share": right / 10}
    rows = [row | {"low": 0.5, "high": 1.0}]
    drawn = [*rows, {**rows[0], "category": "count", "share": right / 20}]
    scores = {"painted": rows, "drawn": drawn}
    report = {"scores": scores, "psnr": 31.25, "pictures": 20, "shown": ["a cat"]}
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report | {"asked": "10 things"}))
    Image.new("RGB", (4, 4)).save(folder / "held-out.png")
    return folder


def test_a_storybook_is_put_together(tmp_path: Path) -> None:
    about, out = tmp_path / "about.md", tmp_path / "out"
    about.write_text(ABOUT)
    runs = [run_of(tmp_path / "one", "one", 1, "red"), run_of(tmp_path / "two", "two", 2, "blue")]
    reports = [report_of(tmp_path / "report", 9), report_of(tmp_path / "each", 8)]
    arguments = ["--model", str(STORYBOOK), "--about", str(about), "--out", str(out)]
    arguments += ["--stages", *map(str, runs), "--reports", *map(str, reports)]
    assert main(arguments) == 0
    assert Checkpoint.open(out).tensors.keys() == Checkpoint.open(STORYBOOK).tensors.keys()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: Apache-2.0\n")
    assert "license: MIT" not in card
    assert "toml" not in card  # recipes are in the repository
    assert "| one | data/x: 7 pictures | 1 | 90 of 8 pictures |  |  |  |" in card
    place = "90.0% (50% to 100%)"
    assert "| 20 pictures of 10 things | painted | drawn |" in card
    assert f"| place | {place} | {place} |" in card
    assert "| count |  | 40.0% (50% to 100%) |" in card
    assert "31.2 dB" in card
    with Image.open(out / "samples.png") as sheet:
        assert sheet.size == (4 * SIDE, SIDE * len(SAMPLES) // 4)
    with Image.open(out / "curves.png") as sheet:
        assert [sheet.getpixel((x, 100)) for x in (100, 700)] == [(255, 0, 0), (0, 0, 255)]
    assert (out / "held-out1.png").exists()


def test_a_model_is_sampled_as_the_registry_says() -> None:
    steps = [load(name).plan(GenerateRequest(prompts=["x"])).steps for name in MODELS]
    assert steps == [4, 10]


def test_each_prompt_has_its_pictures_in_turn() -> None:
    engine = Engine.load("storybook")
    pictures = generate(engine, ["a cat", "a red car"], seed=3, count=2)
    (again,) = generate(engine, ["a red car"], seed=3)
    # Another batch size is another order of summation, in bf16 on processors that have it.
    assert psnr(pictures[2], again) > 38 > 20 > psnr(pictures[3], again)


def test_the_autoencoder_keeps_most_of_a_scene(tmp_path: Path) -> None:
    stream = SceneStream(world("medium", own_only=True), SIDE, 5, tmp_path)
    engine = Engine.load("storybook")
    assert 20 < reconstruction_psnr(engine, stream, count=8) < 45
