"""Draw the gallery of the page about pictures in: its commands, run, and what they made.

python scripts/gallery.py diffgen/engine/README.md scripts/pictures/gallery.jpg
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from diffgen.bench.show.tiles import PAPER, write_text

COLUMNS, SIDE, GAP, LINE = 4, 256, 12, 24
SKY = (0, 0, 256, 96)  # what the mask of the page, sky.png, has painted anew


@dataclass(frozen=True, slots=True)
class Example:
    """A command of the page, the picture it makes, and what the page says of it."""

    command: str
    picture: str
    says: str


def examples(page: str) -> list[Example]:
    """The commands of a page's shell blocks that name their picture with -o."""
    lines = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    found = re.findall(r"^(diffgen .*-o (\S+))(?: +# (.*))?$", lines, re.MULTILINE)
    return [Example(*parts) for parts in found]


def draw(shown: list[Example], folder: Path) -> list[Image.Image]:
    """Run the commands one after the other, as later ones take pictures of earlier ones."""
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, SKY)
    mask.save(folder / "sky.png")
    program = f'diffgen() {{ "{sys.executable}" -m diffgen "$@"; }}'
    script = "\n".join(["set -e", program, *(example.command for example in shown)])
    subprocess.run(["bash", "-c", script], cwd=folder, check=True)
    return [_opened(folder / example.picture) for example in shown]


def _opened(path: Path) -> Image.Image:
    with Image.open(path, formats=["PNG"]) as picture:
        return picture.convert("RGB")


def sheet(shown: list[Example], pictures: list[Image.Image]) -> Image.Image:
    """The pictures in rows, each within one square, what the page says below it."""
    rows = -(-len(shown) // COLUMNS)
    cell = SIDE + GAP, SIDE + GAP + LINE
    page = Image.new("RGB", (COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    for number, (example, picture) in enumerate(zip(shown, pictures, strict=True)):
        row, column = divmod(number, COLUMNS)
        left, top = GAP + column * cell[0], GAP + row * cell[1]
        small = ImageOps.contain(picture, (SIDE, SIDE), Image.Resampling.LANCZOS)
        page.paste(small, (left, top + (SIDE - small.height) // 2))
        write_text(pen, (left, top + SIDE + 4), example.says or example.picture, width=SIDE)
    return page


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    chosen = examples(source.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as work:
        made = draw(chosen, Path(work))
    sheet(chosen, made).save(target, quality=88)
