"""What is in a picture, drawn at random: a pure function of the world, a seed and an index."""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal, get_args

from scripts.storybook.objects import HERE, Kind, all_kinds, kinds_of
from scripts.storybook.words import COLOURS, PLACES, TIMES

WorldName = Literal["narrow", "medium", "wide", "crowded"]
WORLDS: Final[tuple[WorldName, ...]] = get_args(WorldName)
ANY: Final = "*"
NO_COLOUR: Final = "-"


@dataclass(frozen=True, slots=True)
class World:
    """What scenes may hold; a curriculum goes from `narrow` to `wide`.

    `medium` arranges the objects of `narrow` in all ways, `wide` has all objects, and in `crowded`
    few of them stand alone in the middle.
    """

    kinds: tuple[Kind, ...]
    places: tuple[str, ...] = tuple(PLACES)
    times: tuple[str, ...] = tuple(TIMES)
    many: float = 0.0  # chance of two or three of a kind
    pairs: float = 0.0  # chance of two different kinds
    aside: float = 0.0  # chance of standing on the left or right
    sized: float = 0.0  # chance of being small or big
    styled: float = 0.0  # chance of a style other than flat
    astray: float = 0.0  # chance of a place where the thing does not belong
    colourful: float = 1.0  # how many times likelier a kind of many colours is than one of one


def world(name: WorldName, *, own_only: bool = False) -> World:
    """A named world; `own_only` leaves out everything that needs fetched artwork."""
    kinds = kinds_of("wide" if name == "crowded" else name, own_only=own_only)
    if name == "narrow":
        return World(kinds)
    if name == "medium":
        return World(kinds, many=0.25, pairs=0.25, aside=0.3, sized=0.15, astray=0.03)
    # A kind of 11 colours needs more pictures than a kind of one to be known in each of them.
    wide = World(
        kinds, many=0.3, pairs=0.3, aside=0.25, sized=0.2, styled=0.06, astray=0.06, colourful=3.0
    )
    return replace(wide, many=0.55, pairs=0.45, aside=0.6) if name == "crowded" else wide


@dataclass(frozen=True, slots=True)
class Group:
    """One kind in one colour: `count` of them, all of one size."""

    kind: str
    colour: str | None
    count: int = 1
    size: str = "medium"


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture in words. `relation` says where the first of two groups is seen from the second.

    `position` is where one group stands; `variation` seeds everything the caption does not say.
    """

    groups: tuple[Group, ...]
    place: str
    time: str
    position: str = "middle"
    relation: str = ""
    style: str = "flat"
    variation: int = 0


@cache
def held_out() -> frozenset[tuple[str, str, str, str]]:
    """(object, colour, place, time) never drawn for training; `*` stands for every place."""
    with (HERE / "held_out.csv").open(newline="", encoding="utf-8") as file:
        return frozenset(
            (r["object"], r["colour"], r["place"], r["time"]) for r in csv.DictReader(file)
        )


def is_held_out(scene: Scene) -> bool:
    """Whether any group of the scene is one of the held-out combinations."""
    listed = held_out()
    return any(
        (g.kind, g.colour or NO_COLOUR, place, scene.time) in listed
        for g in scene.groups
        for place in (scene.place, ANY)
    )


def sample(where: World, seed: int, index: int) -> Scene:
    """Scene number `index` of a world, never a held-out combination."""
    rng = random.Random((seed << 40) + index)
    while True:
        scene = _draw(where, rng)
        if not is_held_out(scene):
            return scene


def _draw(where: World, rng: random.Random) -> Scene:
    first = _kind(where.kinds, where, rng)
    time = rng.choice(where.times)
    place = _place_for(first, where, rng)
    style = rng.choice(("sticker", "ink")) if rng.random() < where.styled else "flat"
    variation = rng.getrandbits(32)
    if rng.random() < where.pairs:
        groups, relation = _pair(first, where, rng)
        return Scene(groups, place, time, "middle", relation, style, variation)
    count = rng.choice((2, 2, 3)) if rng.random() < where.many else 1
    size = rng.choice(("small", "big")) if rng.random() < where.sized else "medium"
    group = Group(first.name, _colour(first, rng), count, size if count == 1 else "medium")
    aside = count == 1 and group.size != "big" and rng.random() < where.aside
    position = rng.choice(("left", "right")) if aside else "middle"
    return Scene((group,), place, time, position, "", style, variation)


def _kind(among: Sequence[Kind], where: World, rng: random.Random) -> Kind:
    if where.colourful == 1.0:
        return rng.choice(among)
    return rng.choices(among, [where.colourful if kind.body else 1.0 for kind in among])[0]


def _colour(kind: Kind, rng: random.Random) -> str | None:
    return rng.choice(tuple(COLOURS)) if kind.body else None


def _place_for(kind: Kind, where: World, rng: random.Random) -> str:
    """A place the kind belongs to, or any at all when it goes astray."""
    if kind.home in ("water", "swim") and rng.random() >= where.astray:
        return rng.choice([p for p in where.places if PLACES[p].water])
    return rng.choice(where.places)


def _pair(first: Kind, where: World, rng: random.Random) -> tuple[tuple[Group, ...], str]:
    """Two different kinds and how they stand: flyers above, the others beside or behind."""
    flies = first.home == "sky"
    relation = rng.choice(
        ("left", "right", "above") if flies else ("left", "right", "under", "behind", "in front")
    )
    if relation in ("above", "under"):
        fitting = [k for k in where.kinds if (k.home == "sky") != flies]
    else:
        fitting = [k for k in where.kinds if k.home == first.home and k != first]
    second = _kind(fitting or [k for k in where.kinds if k != first], where, rng)
    groups = (Group(first.name, _colour(first, rng)), Group(second.name, _colour(second, rng)))
    return groups, relation


def kind_of(group: Group) -> Kind:
    """The table's row for a group."""
    return all_kinds()[group.kind]
