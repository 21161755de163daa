"""What the steps of a sitting cost on this machine, from a few of each."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from PIL import Image

from scripts.storybook.chain import DRAWN, TRAININGS, Costs, run_folder
from scripts.storybook.draw import png
from scripts.storybook.scene import world
from scripts.storybook.stream import SceneStream
from scripts.storybook.words import COLOURS

WARM: Final = 3  # steps of a training before it is timed: kernels are chosen, memory is found
PAINTED: Final = 40  # scenes


def rehearsed(seconds: Mapping[str, float], own_art: bool, art: Path) -> Costs:
    """The costs, in the folder where a few of everything were made in so many `seconds` a step."""
    step, begin = {}, {}
    for name in TRAININGS:
        rows = (run_folder(name) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        clock = [row["seconds"] for row in map(json.loads, rows) if "seconds" in row]
        step[name] = (clock[-1] - clock[WARM - 1]) / (len(clock) - WARM)
        begin[name] = max(0.0, seconds[name] - clock[-1])
    start = min(seconds[name] for name in DRAWN)
    return Costs(step, begin, start, *_drawing(own_art, art))


def _drawing(own_art: bool, art: Path) -> tuple[int, float, float, float]:
    """How many sprites there are; seconds for one, for a scene without them, and to decode it."""
    where = world("crowded", own_only=own_art)
    stream = SceneStream(where, 256, 7, art)
    cold, _ = _painted(stream)
    warm, files = _painted(stream)
    start = time.perf_counter()
    for file in files:
        Image.open(io.BytesIO(file), formats=["PNG"]).convert("RGB").load()
    decoding = (time.perf_counter() - start) / PAINTED
    drawings = sum(len(COLOURS) if kind.body else 1 for kind in where.kinds)
    scenes = [stream.example(index).scene for index in range(PAINTED)]
    met = len({(group.kind, group.colour) for scene in scenes for group in scene.groups})
    return drawings, max(0.0, cold - warm) / met, warm / PAINTED, decoding


def _painted(stream: SceneStream) -> tuple[float, list[bytes]]:
    start = time.perf_counter()
    files = [png(stream.example(index)) for index in range(PAINTED)]
    return time.perf_counter() - start, files
