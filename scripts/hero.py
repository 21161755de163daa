"""Draw the moving picture on top of the README: four prompts that emerge side by side.

python scripts/hero.py scripts/pictures/hero.webp
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from diffgen import Engine, GenerateRequest
from diffgen.types import StepInfo

PROMPTS = (
    "red barn at sunset",
    "a blue car on a road at night",
    "a yellow sailboat on the sea at dawn",
    "a green house under a rainbow",
)
STEPS, SIDE = 20, 256
PACE, PAUSE = 140, 2200  # milliseconds of a step, and of the last


def frames(engine: Engine) -> list[Image.Image]:
    """What each step takes the four pictures to be, in a row."""
    rows: list[Image.Image] = []

    def keep(info: StepInfo) -> None:
        rows.append(row(engine.decode(info.denoised.clone())))

    request = GenerateRequest(prompts=PROMPTS, seed=1, steps=STEPS, batch_size=len(PROMPTS))
    finished = [made.image for made in engine.generate(request, on_step=keep)]
    return [*rows[:-1], row(finished)]


def row(pictures: list[Image.Image]) -> Image.Image:
    """Pictures beside each other, enlarged."""
    strip = Image.new("RGB", (SIDE * len(pictures), SIDE))
    for index, picture in enumerate(pictures):
        strip.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (SIDE * index, 0))
    return strip


if __name__ == "__main__":
    film = frames(Engine.load("storybook", dtype="fp32"))
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    pace = [PACE] * (len(film) - 1) + [PAUSE]
    film[0].save(path, save_all=True, append_images=film[1:], duration=pace, loop=0, quality=80)
