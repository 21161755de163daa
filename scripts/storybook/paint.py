"""Paint a scene: sky, ground, objects in the light of the hour, and the weather over them."""

import random
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.types import Size
from scripts.storybook.brush import Brush
from scripts.storybook.ground import GROUNDS, HORIZON, island
from scripts.storybook.layout import Placed, arrange
from scripts.storybook.scene import Scene, kind_of
from scripts.storybook.sky import GROUND_LIGHT, paint_sky
from scripts.storybook.sprites import Pixels, blend, soft_ellipse, sprite

WEATHER_VARIANTS = 12


def paint(scene: Scene, size: Size, cache_dir: Path) -> NDArray[np.uint8]:
    """The scene as (height, width, 3) uint8. size: (width, height); things fit the shorter side."""
    rng = random.Random(scene.variation)
    things = arrange(scene, rng)
    picture = _background(scene, things, size, rng)
    if scene.time == "fog":
        picture += 0.45 * (0.88 - picture)
    for thing in things:
        _add(picture, thing, scene, cache_dir)
    if scene.time in ("storm", "rain", "snowfall", "fog"):
        layer = _weather(scene.time, size, scene.variation % WEATHER_VARIANTS)
        blend(picture, layer, left=0, top=0)
    return np.asarray(np.clip(picture * 255 + 0.5, 0, 255), dtype=np.uint8)


def _background(scene: Scene, things: list[Placed], size: Size, rng: random.Random) -> Pixels:
    brush = Brush(size, GROUND_LIGHT[scene.time])
    horizon = HORIZON.get(scene.place, 0.60) + rng.uniform(-0.03, 0.03)
    paint_sky(brush, rng, scene.time, horizon)
    GROUNDS[scene.place](brush, rng, scene.time, horizon)
    if scene.place == "sea":
        for thing in things:
            if thing.ground and kind_of(thing.group).home == "ground":
                island(brush, thing.x, thing.base, thing.side * 0.84)
    return brush.picture().copy()


def _add(picture: Pixels, thing: Placed, scene: Scene, cache_dir: Path) -> None:
    down, across = picture.shape[:2]
    group, side = thing.group, round(thing.side * min(down, across))
    pixels = sprite(group.kind, group.colour, scene.style, scene.time, side, cache_dir)
    height, width = pixels.shape[:2]
    left, bottom = round(thing.x * across - width / 2), round(thing.base * down)
    left = min(max(left, 1), max(across - width - 1, 1))
    if thing.ground:
        afloat = scene.place in ("sea", "lake") and kind_of(group).home != "ground"
        tone, strength = ((214, 236, 250), 0.5) if afloat else ((20, 18, 36), 0.34)
        thick = max(3, round(0.17 * height if afloat else 0.14 * height))
        wide = round(width * (1.2 if afloat else 1.02))
        under = soft_ellipse(wide, thick, tone, strength)
        blend(picture, under, left=left + (width - wide) // 2, top=bottom - round(0.6 * thick))
    blend(picture, pixels, left=left, top=bottom - height)


@lru_cache(maxsize=256)
def _weather(time: str, size: Size, variant: int) -> Pixels:
    """Rain, snow or haze over the whole picture, (height, width, 4) premultiplied."""
    if time == "fog":
        width, height = size
        rows = np.linspace(0, 3 * np.pi, height, dtype=np.float32)[:, None, None]
        alpha = np.broadcast_to(0.13 + 0.07 * np.sin(rows + variant), (height, width, 1))
        return np.concatenate([alpha * 0.93] * 3 + [alpha], axis=2).astype(np.float32)
    rng = random.Random(variant)
    brush = Brush(size, (1.0, 1.0, 1.0))
    for _ in range({"storm": 34, "rain": 42, "snowfall": 46}[time]):
        x, y = rng.uniform(0, 1.1), rng.random()
        if time == "snowfall":
            radius = rng.choice((0.007, 0.010, 0.014))
            brush.ellipse(x, y, radius, radius, (255, 255, 255))
        else:
            brush.stroke(((x, y), (x - 0.022, y + 0.075)), 0.007, (255, 255, 255))
    streaks = brush.picture()[..., :1] * (0.95 if time == "snowfall" else 0.5)
    colour = np.array([1, 1, 1, 1] if time == "snowfall" else [0.82, 0.9, 0.98, 1], np.float32)
    return np.asarray(streaks * colour, dtype=np.float32)
