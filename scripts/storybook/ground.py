"""The ground of each place, painted flat in a few tones from the horizon down."""

import math
import random
from collections.abc import Callable
from typing import Final

from scripts.storybook.brush import RGB, Brush, Point, mix

Painter = Callable[[Brush, random.Random, str, float], None]

GRASS: Final[RGB] = (118, 190, 82)
SAND: Final[RGB] = (240, 205, 136)
WATER: Final[RGB] = (52, 132, 200)
SNOW: Final[RGB] = (242, 247, 253)
HORIZON: Final[dict[str, float]] = {"sea": 0.52, "beach": 0.5, "lake": 0.54, "road": 0.56}


def ridge(
    rng: random.Random, level: float, height: float, *, waves: float, floor: float = 1.0
) -> list[Point]:
    """A rolling outline about `level`, closed along `floor`."""
    phase, second = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    points = [(-0.01, floor)]
    for step in range(25):
        x = step / 24
        bump = math.sin(waves * 2 * math.pi * x + phase) + 0.4 * math.sin(9 * x + second)
        points.append((x * 1.02 - 0.01, level - height * bump / 1.4))
    return [*points, (1.01, floor)]


def _tufts(brush: Brush, rng: random.Random, colour: RGB, top: float, count: int) -> None:
    for _ in range(count):
        x, y = rng.random(), rng.uniform(top, 0.98)
        size = 0.012 + 0.02 * (y - top)
        blades = (
            (x - size, y),
            (x - size * 0.6, y - size * 1.6),
            (x, y),
            (x + size * 0.7, y - size * 1.6),
            (x + size, y),
        )
        brush.polygon(blades, colour)


def _waves(brush: Brush, rng: random.Random, top: float, bottom: float, count: int) -> None:
    for _ in range(count):
        x, y = rng.random(), rng.uniform(top + 0.02, bottom - 0.02)
        reach = 0.03 + 0.08 * (y - top)
        brush.stroke(((x - reach, y), (x + reach, y)), 0.008, mix(WATER, (255, 255, 255), 0.35))


def _field(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.polygon(ridge(rng, horizon, 0.02, waves=1.2), mix(GRASS, (60, 140, 70), 0.45))
    brush.polygon(ridge(rng, horizon + 0.06, 0.012, waves=0.8), GRASS)
    _tufts(brush, rng, mix(GRASS, (50, 120, 50), 0.5), horizon + 0.12, 12)


def _snow(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.polygon(ridge(rng, horizon, 0.03, waves=1.0), mix(SNOW, (170, 196, 228), 0.55))
    brush.polygon(ridge(rng, horizon + 0.07, 0.025, waves=0.9), SNOW)
    brush.polygon(ridge(rng, 0.9, 0.02, waves=0.8), mix(SNOW, (190, 210, 236), 0.4))


def _desert(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.polygon(ridge(rng, horizon - 0.01, 0.05, waves=1.3), (216, 160, 92))
    brush.polygon(ridge(rng, horizon + 0.07, 0.03, waves=0.9), (236, 184, 104))
    brush.polygon(ridge(rng, 0.84, 0.035, waves=0.7), (246, 200, 122))


def _sea(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.rectangle(0, horizon, 1, 1, mix(WATER, (120, 190, 230), 0.25))
    brush.rectangle(0, horizon + 0.1, 1, 1, WATER)
    brush.rectangle(0, 0.84, 1, 1, mix(WATER, (24, 84, 160), 0.45))
    _waves(brush, rng, horizon, 1.0, 14)


def _beach(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.rectangle(0, horizon, 1, 0.75, WATER)
    _waves(brush, rng, horizon, 0.66, 5)
    shore = ridge(rng, 0.68, 0.015, waves=1.0)
    brush.polygon([(x, y - 0.022 if y < 1 else y) for x, y in shore], (236, 248, 252))
    brush.polygon(shore, SAND)
    for _ in range(9):
        brush.ellipse(rng.random(), rng.uniform(0.76, 0.98), 0.008, 0.005, (214, 172, 104))


def _road(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.polygon(ridge(rng, horizon, 0.02, waves=1.1), mix(GRASS, (60, 140, 70), 0.35))
    brush.rectangle(0, horizon + 0.06, 1, 1, GRASS)
    brush.rectangle(0, 0.70, 1, 0.95, (112, 112, 122))
    brush.rectangle(0, 0.70, 1, 0.715, (190, 188, 186))
    brush.rectangle(0, 0.935, 1, 0.95, (190, 188, 186))
    start = rng.uniform(-0.15, 0)
    for dash in range(7):
        x = start + 0.18 * dash
        brush.rectangle(x, 0.815, x + 0.09, 0.835, (250, 240, 214))


def _hills(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    for level, height, waves, colour in (
        (horizon - 0.06, 0.09, 1.3, (92, 158, 108)),
        (horizon + 0.04, 0.07, 1.5, (108, 180, 92)),
        (horizon + 0.16, 0.04, 1.1, (134, 204, 88)),
    ):
        brush.polygon(ridge(rng, level, height, waves=waves), colour)


def _forest(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    for base, tall, colour in (
        (horizon + 0.03, 0.30, (58, 118, 84)),
        (horizon + 0.08, 0.24, (40, 94, 64)),
    ):
        offset = rng.uniform(0, 0.1)
        for step in range(-1, 11):
            x = offset + 0.1 * step + rng.uniform(-0.015, 0.015)
            top = base - tall * rng.uniform(0.75, 1.1)
            brush.polygon(((x - 0.075, base), (x, top), (x + 0.075, base)), colour)
        brush.rectangle(0, base - 0.01, 1, 1, colour)
    brush.polygon(ridge(rng, horizon + 0.1, 0.01, waves=1.0), (92, 138, 70))
    _tufts(brush, rng, (62, 106, 52), horizon + 0.16, 12)


def _city(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    window = (255, 222, 122) if time in ("night", "storm", "sunset") else (206, 226, 240)
    x = rng.uniform(-0.12, -0.02)
    while x < 1:
        width, top = rng.uniform(0.11, 0.17), horizon - rng.uniform(0.08, 0.32)
        wall = rng.choice(((122, 134, 160), (150, 140, 158), (134, 150, 166), (164, 150, 146)))
        brush.rectangle(x, top, x + width, horizon + 0.1, wall)
        for row in range(int((horizon + 0.06 - top) / 0.055)):
            for column in range(3):
                wx, wy = x + width * (0.16 + 0.27 * column), top + 0.03 + 0.055 * row
                lit = time not in ("night", "storm", "sunset")
                brush.rectangle(wx, wy, wx + width * 0.16, wy + 0.028, window, lit=lit)
        x += width + 0.008
    brush.rectangle(0, horizon + 0.09, 1, 1, (174, 172, 178))
    brush.rectangle(0, horizon + 0.09, 1, horizon + 0.11, (212, 208, 208))


def _mountains(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    for x in (rng.uniform(0.05, 0.2), rng.uniform(0.75, 0.95), rng.uniform(0.4, 0.6)):
        tall, half = rng.uniform(0.28, 0.4), rng.uniform(0.26, 0.36)
        top, base = horizon - tall, horizon + 0.08
        brush.polygon(((x - half, base), (x, top), (x + half, base)), (124, 134, 164))
        brush.polygon(((x, top), (x + half, base), (x + 0.1 * half, base)), (102, 112, 146))
        cap, drop = 0.34 * half, 0.34 * (base - top)
        snow = (
            (x - cap, top + drop),
            (x, top),
            (x + cap, top + drop),
            (x + 0.4 * cap, top + 0.75 * drop),
            (x, top + 1.05 * drop),
            (x - 0.4 * cap, top + 0.75 * drop),
        )
        brush.polygon(snow, (244, 248, 254))
    brush.polygon(ridge(rng, horizon + 0.06, 0.012, waves=1.0), (128, 168, 104))


def _lake(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    brush.polygon(ridge(rng, horizon - 0.03, 0.04, waves=1.4), (84, 146, 96))
    brush.rectangle(0, horizon + 0.02, 1, 1, GRASS)
    brush.ellipse(0.5, 0.73, 0.53 * brush.across, 0.155 * brush.down, mix(GRASS, SAND, 0.7))
    brush.ellipse(0.5, 0.73, 0.51 * brush.across, 0.14 * brush.down, (84, 162, 214))
    for _ in range(7):
        x, y = rng.uniform(0.15, 0.85), rng.uniform(0.63, 0.83)
        brush.stroke(((x - 0.05, y), (x + 0.05, y)), 0.008, (150, 204, 236))


GROUNDS: Final[dict[str, Painter]] = {
    "field": _field,
    "snow": _snow,
    "desert": _desert,
    "beach": _beach,
    "sea": _sea,
    "road": _road,
    "hills": _hills,
    "forest": _forest,
    "city": _city,
    "mountains": _mountains,
    "lake": _lake,
}


def island(brush: Brush, x: float, base: float, wide: float) -> None:
    """A sandbank under what stands in the sea, `wide` shorter sides of the picture."""
    reach = wide / 2 + 0.07
    brush.ellipse(x, base, reach + 0.025, 0.075, mix(WATER, (255, 255, 255), 0.6))
    brush.ellipse(x, base - 0.005, reach, 0.06, SAND)
