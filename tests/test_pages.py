"""The pages' shell blocks do what the pages say, as whoever copies them would run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def blocks(page: str) -> str:
    """The shell blocks of a page, one behind the other."""
    text = (ROOT / "diffgen" / page / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert found
    return "".join(found)


def run(script: str, folder: Path) -> str:
    """What a script prints; every line of it must succeed."""
    program = folder / "bin" / "diffgen"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m diffgen "$@"\n')
    program.chmod(0o755)
    own = {"PYTHONPATH": str(ROOT), "DIFFGEN_STEPS": "5", "OMP_NUM_THREADS": "1"}
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | own | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Width and height of every picture below a folder."""
    found = {}
    for path in folder.rglob("*.png"):
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            found[path.relative_to(folder).as_posix()] = image.size
    return found


@pytest.mark.skipif(os.name == "nt", reason="the pages are for a shell")
def test_files_of_prompts(tmp_path: Path) -> None:
    out = run(blocks("batch"), tmp_path)
    names = sorted(sizes(tmp_path))
    assert [name for name in names if "cat" not in name] == [
        "again/a-yellow-duck-1.png",
        "ducks/a-yellow-duck-1.png",
        "night/a-blue-boat-4.png",
        "night/a-red-barn-at-sunset-7.png",
    ]
    assert len([name for name in names if re.match(r"night/a-(white|black)-cat-", name)]) == 2
    assert len(names) == 6
    # The second command prints no path: all was there.
    assert [out.count(f"{name}\n") for name in names if name.startswith("night/")] == [1] * 4
    assert json.loads((tmp_path / "night.json").read_text())["made"] == 4
    assert "  seed: 4\n" in out
    assert "again/a-yellow-duck-1.png: equal\n" in out


@pytest.mark.skipif(os.name == "nt", reason="the pages are for a shell")
def test_pictures_in(tmp_path: Path) -> None:
    sky = Image.new("L", (256, 256))
    sky.paste(255, (0, 0, 256, 96))
    sky.save(tmp_path / "sky.png")
    run(blocks("engine"), tmp_path)
    found = sizes(tmp_path)
    assert found.pop("wide.png") == (384, 256)
    assert found.pop("large.png") == (512, 512)
    names = {"boat", "night", "sky2", "near", "purple", "tile", "sky"}
    assert found == {f"{name}.png": (256, 256) for name in names}
    boat, painted = (
        Image.open(tmp_path / name, formats=["PNG"]).convert("RGB")
        for name in ("boat.png", "sky2.png")
    )
    below, above = (0, 96, 256, 256), (0, 0, 256, 96)
    assert boat.crop(below).tobytes() == painted.crop(below).tobytes()
    assert boat.crop(above).tobytes() != painted.crop(above).tobytes()
