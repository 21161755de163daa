"""Captions of a scene in varied words and orders; nothing is named that is not to be seen."""

import random

from scripts.storybook.scene import Group, Scene, kind_of
from scripts.storybook.words import (
    COUNT_WORDS,
    MEDIA,
    PLACES,
    POSITIONS,
    RELATIONS,
    SIZES,
    STYLES,
    TIMES,
)

_AN = ("a", "e", "i", "o", "umbrella", "hourglass")


def captions(scene: Scene) -> list[str]:
    """Four captions: a plain full one, two worded freely, and a short one.

    The first three name object, colour, count, size, place, time, relation and position (the
    middle sometimes goes without saying). The short one leaves place or time unsaid.
    """
    rng = random.Random(scene.variation ^ 0x5EED)
    subject, place, time = _subject(scene, None), _place(scene, None), TIMES[scene.time][0]
    style = f"{STYLES[scene.style][0]} " if scene.style != "flat" else ""
    plain = f"{style}{subject} {place} {time}{_position(scene, None)}"
    return [plain, _free(scene, rng), _free(scene, rng), _short(scene, rng)]


def noun_phrase(group: Group, rng: random.Random | None) -> str:
    """`a small red barn`, `two blue boats`; without rng, the plainest words."""
    kind = kind_of(group)
    size = SIZES[group.size][0] if rng is None else rng.choice(SIZES[group.size])
    name = kind.name if group.count == 1 else kind.plural
    if group.count == 1 and rng is not None:
        name = rng.choice((kind.name, kind.name, *kind.also))
    words = " ".join(filter(None, (size, group.colour, name)))
    if group.count > 1:
        return f"{COUNT_WORDS[group.count]} {words}"
    return f"{'an' if words.startswith(_AN) else 'a'} {words}"


def _subject(scene: Scene, rng: random.Random | None) -> str:
    first = noun_phrase(scene.groups[0], rng)
    if not scene.relation:
        return first
    said = RELATIONS[scene.relation]
    relation = said[0] if rng is None else rng.choice(said)
    return f"{first} {relation} {noun_phrase(scene.groups[1], rng)}"


def _place(scene: Scene, rng: random.Random | None) -> str:
    place = PLACES[scene.place]
    homes = {kind_of(group).home for group in scene.groups}
    said = place.land
    if homes == {"sky"}:
        said = place.air
    elif homes <= {"water", "swim", "sky"} and place.water:
        said = ("in the sea",) if homes == {"swim"} and scene.place == "sea" else place.water
        said = ("in a lake",) if homes == {"swim"} and scene.place == "lake" else said
    return said[0] if rng is None else rng.choice(said)


def _position(scene: Scene, rng: random.Random | None) -> str:
    middle_unsaid = rng is None or rng.random() < 0.85
    if scene.relation or scene.groups[0].count > 1:
        return ""
    if scene.position == "middle" and middle_unsaid:
        return ""
    said = POSITIONS[scene.position]
    return ", " + (said[0] if rng is None else rng.choice(said))


def _prefix(scene: Scene, rng: random.Random) -> str:
    if scene.style != "flat":
        return rng.choice(STYLES[scene.style]) + " "
    return rng.choice(MEDIA) + " " if rng.random() < 0.25 else ""


def _free(scene: Scene, rng: random.Random) -> str:
    """All of the scene, in one of several orders."""
    subject, place = _prefix(scene, rng) + _subject(scene, rng), _place(scene, rng)
    time, position = rng.choice(TIMES[scene.time]), _position(scene, rng)
    orders = (
        f"{subject} {place} {time}{position}",
        f"{subject} {time} {place}{position}",
        f"{time}, {subject} {place}{position}",
        f"{subject}{position}, {place}, {time}",
        f"{place} {time}, {subject}{position}",
    )
    return rng.choice(orders)


def _short(scene: Scene, rng: random.Random) -> str:
    """What is there, and at most one of where, when and on which side."""
    subject = _prefix(scene, rng) + _subject(scene, rng)
    detail = rng.choice((_place(scene, rng), rng.choice(TIMES[scene.time]), ""))
    if not detail:
        return subject + _position(scene, rng)
    return f"{subject} {detail}"
