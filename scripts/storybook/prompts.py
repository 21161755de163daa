"""The questions of the judge: scenes a model never saw, with what each category asks of them."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from scripts.storybook.objects import HERE
from scripts.storybook.scene import ANY, NO_COLOUR, Group, Scene, World, kind_of
from scripts.storybook.words import COLOURS, PLACES

HELD_OUT: Final = HERE / "held_out.csv"


@dataclass(frozen=True, slots=True)
class Question:
    """A scene to ask for, and the category its answer counts for."""

    scene: Scene
    category: str


def read_scenes(path: Path, where: World) -> list[Scene]:
    """The combinations of a CSV (object, colour, place, time) that a world knows.

    `*` for the place stands for the first place of the world where the object belongs.
    """
    known = {kind.name for kind in where.kinds}
    scenes = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["object"] not in known or row["time"] not in where.times:
                continue
            colour = None if row["colour"] == NO_COLOUR else row["colour"]
            group = Group(row["object"], colour)
            place = _home(group, where) if row["place"] == ANY else row["place"]
            if place in where.places:
                scenes.append(Scene((group,), place, row["time"]))
    return scenes


def each_kind(where: World) -> list[Scene]:
    """One scene of every kind of a world, where it belongs, colours and times in turn."""
    scenes = []
    for number, kind in enumerate(where.kinds):
        group = Group(kind.name, tuple(COLOURS)[number % len(COLOURS)] if kind.body else None)
        wet = kind.home in ("water", "swim")
        places = [place for place in where.places if not wet or PLACES[place].water]
        place, time = places[number % len(places)], where.times[number % len(where.times)]
        scenes.append(Scene((group,), place, time))
    return scenes


def _home(group: Group, where: World) -> str:
    wet = kind_of(group).home in ("water", "swim")
    return next(place for place in where.places if not wet or PLACES[place].water)


def questions(scenes: list[Scene], where: World) -> Iterator[Question]:
    """Each scene as it is, and, where the world has them, moved aside, in twos and in pairs."""
    for number, scene in enumerate(scenes):
        group = scene.groups[0]
        yield Question(scene, "plain")
        if where.aside:
            side = ("left", "right")[number % 2]
            yield Question(replace(scene, position=side), "position")
        if where.many:
            many = replace(group, count=2 + number % 2)
            yield Question(replace(scene, groups=(many,)), "count")
        if where.pairs:
            partner = _partner(scene, scenes, number)
            if partner is not None:
                pair = replace(scene, groups=(group, partner), relation="left")
                yield Question(pair, "two objects")


def _partner(scene: Scene, scenes: list[Scene], number: int) -> Group | None:
    """The next listed object that lives where this one does."""
    first = scene.groups[0]
    for other in (*scenes[number + 1 :], *scenes[:number]):
        second = other.groups[0]
        if second.kind != first.kind and kind_of(second).home == kind_of(first).home:
            return second
    return None
