"""Where each object of a scene stands: centre, base line, size and order of painting."""

import random
from dataclasses import dataclass
from typing import Final

from scripts.storybook.scene import Group, Scene, kind_of

SIDE: Final[dict[str, float]] = {"small": 0.30, "medium": 0.50, "big": 0.66}
MANY_SIDE: Final = (0.0, 0.50, 0.38, 0.29)
X: Final[dict[str, float]] = {"left": 0.27, "middle": 0.5, "right": 0.73}


@dataclass(frozen=True, slots=True)
class Placed:
    """One object: x of its middle, y of its base and its longer side as shares of the picture."""

    group: Group
    x: float
    base: float
    side: float
    ground: bool  # it touches the ground or the water, so it casts a shadow or a ripple


def arrange(scene: Scene, rng: random.Random) -> list[Placed]:
    """Every object of the scene, those farther away first."""
    if scene.relation:
        return _related(scene, rng)
    (group,) = scene.groups
    if group.count > 1:
        return _several(scene, group, rng)
    aside = 0.86 if scene.position != "middle" else 1.0
    side = SIDE[group.size] * aside * kind_of(group).scale
    x = X[scene.position] + rng.uniform(-0.035, 0.035)
    return [_put(scene, group, x, side, rng.uniform(-0.02, 0.02))]


def _several(scene: Scene, group: Group, rng: random.Random) -> list[Placed]:
    side = MANY_SIDE[group.count] * kind_of(group).scale
    step = 0.92 / group.count
    return [
        _put(scene, group, 0.5 + step * (i - (group.count - 1) / 2), side, rng.uniform(-0.03, 0.03))
        for i in range(group.count)
    ]


def _put(scene: Scene, group: Group, x: float, side: float, shift: float) -> Placed:
    """An object in the air, in the water or on the ground, as its kind and the place have it."""
    home = kind_of(group).home
    if home == "sky":
        return Placed(group, x, min(0.36 + side / 2, 0.78) + shift, side, False)
    base = {"sea": 0.80, "lake": 0.93, "beach": 0.88, "road": 0.87}.get(scene.place, 0.86)
    if scene.place in ("sea", "lake") and home != "ground":
        base = 0.80 if scene.place == "sea" else 0.77
        base += 0.08 if home == "swim" else 0.0
    return Placed(group, x, base + shift, side, True)


def _related(scene: Scene, rng: random.Random) -> list[Placed]:
    first, second = scene.groups
    if scene.relation in ("left", "right"):
        a, b = (0.26, 0.74) if scene.relation == "left" else (0.74, 0.26)
        return [_put(scene, g, x, 0.40, 0.0) for g, x in ((first, a), (second, b))]
    if scene.relation in ("above", "under"):
        upper, lower = (first, second) if scene.relation == "above" else (second, first)
        x = rng.uniform(0.42, 0.58)
        return [
            Placed(upper, x, 0.43, 0.37, False),
            _put(scene, lower, x, 0.42, 0.02),
        ]
    back, front = (first, second) if scene.relation == "behind" else (second, first)
    lean = rng.choice((-1, 1))
    return [
        _put(scene, back, 0.5 - 0.13 * lean, 0.52, -0.06),
        _put(scene, front, 0.5 + 0.17 * lean, 0.34, 0.06),
    ]
