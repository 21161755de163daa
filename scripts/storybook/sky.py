"""The sky: colours by time of day and weather, sun, moon, stars, clouds, lightning, rainbow."""

import random
from typing import Final

from scripts.storybook.brush import RGB, Brush, mix

SKY: Final[dict[str, tuple[RGB, ...]]] = {
    "day": ((74, 160, 238), (142, 202, 248), (212, 238, 252)),
    "dawn": ((150, 184, 232), (238, 196, 214), (255, 218, 170)),
    "sunset": ((88, 54, 128), (222, 88, 96), (255, 176, 74)),
    "night": ((9, 14, 48), (20, 31, 82), (44, 60, 122)),
    "storm": ((44, 49, 62), (70, 77, 92), (104, 112, 124)),
    "rain": ((112, 134, 156), (146, 166, 184), (182, 196, 206)),
    "fog": ((206, 212, 217), (220, 224, 227), (232, 234, 235)),
    "snowfall": ((140, 162, 194), (176, 194, 216), (212, 223, 235)),
    "rainbow": ((104, 172, 232), (160, 208, 240), (220, 238, 246)),
}
GROUND_LIGHT: Final[dict[str, tuple[float, float, float]]] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.0, 0.90, 0.90),
    "sunset": (0.92, 0.72, 0.66),
    "night": (0.34, 0.40, 0.62),
    "storm": (0.56, 0.59, 0.64),
    "rain": (0.78, 0.82, 0.86),
    "fog": (0.93, 0.94, 0.95),
    "snowfall": (0.88, 0.92, 0.98),
    "rainbow": (1.0, 1.0, 0.98),
}
_CLOUDS: Final[dict[str, RGB]] = {
    "day": (255, 255, 255),
    "dawn": (255, 232, 226),
    "sunset": (244, 138, 124),
    "storm": (60, 65, 78),
    "rain": (196, 206, 214),
    "snowfall": (232, 238, 246),
    "rainbow": (255, 255, 255),
}
_BOWS: Final[tuple[RGB, ...]] = (
    (236, 84, 78),
    (250, 158, 64),
    (252, 222, 92),
    (112, 200, 112),
    (86, 160, 232),
    (154, 110, 206),
)


def cloud(brush: Brush, x: float, y: float, width: float, colour: RGB) -> None:
    """A flat-bottomed cloud of three puffs about (x, y)."""
    unit = width / 6
    for dx, dy, radius in (
        (-1.8, 0.0, 1.0),
        (-0.5, -0.6, 1.5),
        (1.1, -0.3, 1.25),
        (2.1, 0.15, 0.8),
    ):
        puff = brush.beside((x, y), dx * unit, dy * unit)
        brush.ellipse(*puff, radius * unit, radius * unit, colour, lit=False)
    left, right = (
        brush.beside((x, y), -2.4 * unit, 0),
        brush.beside((x, y), 2.6 * unit, 0.95 * unit),
    )
    brush.rectangle(*left, *right, colour, lit=False)
    for dx in (-2.4, 2.6):
        end = brush.beside((x, y), dx * unit, 0.45 * unit)
        brush.ellipse(*end, unit * 0.5, unit * 0.5, colour, lit=False)


def _disc(brush: Brush, x: float, y: float, radius: float, colour: RGB, halo: RGB) -> None:
    brush.ellipse(x, y, radius * 1.45, radius * 1.45, mix(colour, halo, 0.7), lit=False)
    brush.ellipse(x, y, radius, radius, colour, lit=False)


def _night(brush: Brush, rng: random.Random, horizon: float) -> None:
    for _ in range(rng.randint(16, 26)):
        size = rng.choice((0.004, 0.006, 0.009))
        x, y = rng.random(), rng.uniform(0.02, horizon - 0.05)
        brush.ellipse(x, y, size, size, (255, 250, 220), lit=False)
    x, y = rng.choice((0.15, 0.84)) + rng.uniform(-0.04, 0.04), rng.uniform(0.12, 0.18)
    _disc(brush, x, y, 0.07, (255, 246, 206), (26, 38, 92))
    for dx, dy, radius in ((-0.02, -0.015, 0.014), (0.022, 0.02, 0.01)):
        crater = brush.beside((x, y), dx, dy)
        brush.ellipse(*crater, radius, radius, (236, 222, 176), lit=False)


def _storm(brush: Brush, rng: random.Random, horizon: float) -> None:
    for step in range(5):
        x = (step + rng.uniform(0.2, 0.8)) / 5
        cloud(brush, x, rng.uniform(0.05, 0.14), rng.uniform(0.34, 0.46), _CLOUDS["storm"])
    x, y = rng.choice((0.14, 0.86)) + rng.uniform(-0.05, 0.05), 0.17
    bolt = (
        (0.02, 0),
        (-0.03, 0.15),
        (0.0, 0.15),
        (-0.03, 0.31),
        (0.05, 0.11),
        (0.015, 0.11),
        (0.05, 0),
    )
    brush.polygon([brush.beside((x, y), dx, dy) for dx, dy in bolt], (255, 232, 110), lit=False)


def _rainbow(brush: Brush, rng: random.Random, horizon: float) -> None:
    centre, radius = rng.uniform(0.4, 0.6), rng.uniform(0.46, 0.52)
    for step, colour in enumerate(_BOWS):
        brush.arc(centre, horizon + 0.02, radius - 0.024 * step, 0.026, colour)
    for side in (-1, 1):
        end = brush.beside((centre, horizon), side * 0.43, -0.05)
        cloud(brush, *end, 0.26, _CLOUDS["rainbow"])


def _sun(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    if time == "day":
        x, y = rng.choice((0.14, 0.86)) + rng.uniform(-0.03, 0.03), rng.uniform(0.11, 0.16)
        _disc(brush, x, y, 0.075, (255, 216, 64), (150, 205, 248))
    elif time == "dawn":
        x = rng.choice((rng.uniform(0.1, 0.24), rng.uniform(0.76, 0.9)))
        _disc(brush, x, horizon - 0.02, 0.09, (255, 246, 200), (255, 218, 180))
    else:
        x = rng.choice((rng.uniform(0.1, 0.28), rng.uniform(0.72, 0.9)))
        _disc(brush, x, horizon - 0.02, 0.12, (255, 214, 92), (255, 160, 76))


def paint_sky(brush: Brush, rng: random.Random, time: str, horizon: float) -> None:
    """The sky from the top down to the horizon, with whatever is in it at that time."""
    brush.gradient(0.0, horizon + 0.08, SKY[time])
    if time in ("day", "dawn", "sunset"):
        _sun(brush, rng, time, horizon)
    elif time == "night":
        _night(brush, rng, horizon)
    elif time == "storm":
        _storm(brush, rng, horizon)
    elif time == "rainbow":
        _rainbow(brush, rng, horizon)
    if time in ("day", "dawn", "sunset", "rain", "snowfall"):
        for side in rng.sample((0.22, 0.5, 0.78), rng.randint(1, 2) + (time == "rain")):
            x, y = side + rng.uniform(-0.08, 0.08), rng.uniform(0.08, 0.28)
            cloud(brush, x, y, rng.uniform(0.2, 0.32), _CLOUDS[time])
