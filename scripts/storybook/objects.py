"""The table of things a scene can hold (objects.csv), and where each belongs."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
WORLD_ORDER: Final = ("narrow", "medium", "wide")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    art: `own:`, `noto:` or `fluent:` and the drawing's name.
    home: where it belongs: `ground`, `water` (floats), `swim` (in the water) or `sky`.
    body: the colour in the artwork that stands for the object's own, as hex; empty for objects
    that come in one colour only and are never called by one.
    """

    name: str
    plural: str
    also: tuple[str, ...]
    art: str
    home: str
    scale: float
    body: str
    world: str

    @property
    def own(self) -> bool:
        """Drawn for this project, so available without the fetched artwork."""
        return self.art.startswith("own:")


def _kind(row: dict[str, str]) -> Kind:
    return Kind(
        name=row["name"],
        plural=row["plural"] or row["name"] + "s",
        also=tuple(filter(None, row["also"].split("|"))),
        art=row["art"],
        home=row["home"],
        scale=float(row["scale"]),
        body=row["body"],
        world=row["world"],
    )


@cache
def all_kinds() -> dict[str, Kind]:
    """Every kind by name, in the order of the table."""
    with (HERE / "objects.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: _kind(row) for row in csv.DictReader(file)}


def kinds_of(world: str, *, own_only: bool = False) -> tuple[Kind, ...]:
    """The kinds of a world and of every narrower one."""
    known = WORLD_ORDER[: WORLD_ORDER.index(world) + 1]
    return tuple(k for k in all_kinds().values() if k.world in known and (k.own or not own_only))
