"""Shell completion of option values: names with short descriptions.

Completion loads no torch, and ignores an unreadable configuration: the command itself reports that.
Without suggestions, the shell completes files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from diffgen.errors import DiffgenError

if TYPE_CHECKING:
    from diffgen.weights.registry import Kind

Offer = tuple[str, str]  # a value, and what it is
Source = Callable[[], Iterator[Offer]]


def completion_of(field: str) -> Callable[[str], list[Offer]] | None:
    """The completion of a setting's values, by its field's name; None if there is none."""
    source = SOURCES.get(field)
    if source is None:
        return None
    listed = field in LISTS

    def complete(incomplete: str) -> list[Offer]:
        before, comma, word = incomplete.rpartition(",") if listed else ("", "", incomplete)
        return [(f"{before}{comma}{name}", about) for name, about in _matching(source, word)]

    return complete


def _matching(source: Source, word: str) -> list[Offer]:
    """Each name once, with its first description."""
    found: dict[str, str] = {}
    try:
        for name, about in source():
            if name.startswith(word):
                found.setdefault(name, about)
    except (DiffgenError, OSError):
        pass
    return list(found.items())


def _samplers() -> Iterator[Offer]:
    from diffgen.diffusion.samplers import SAMPLERS

    for spec in SAMPLERS.values():
        yield spec.name, spec.label


def _schedules() -> Iterator[Offer]:
    from diffgen.settings.names import SPACING_LABELS

    yield from SPACING_LABELS.items()


def _weights(kind: Kind) -> Iterator[Offer]:
    """Names of a kind of weights: registered ones, then files in the user's folders."""
    from diffgen.configuration import Configuration
    from diffgen.weights.registry import known_entries
    from diffgen.weights.shelf import items

    for name, entry in known_entries().items():
        if entry.kind == kind:
            yield name, entry.description or ""
    for item in items(Configuration.read().folders, kind):
        yield item.name, str(item.path.parent)


SOURCES: Mapping[str, Source] = {
    "sampler": _samplers,
    "samplers": _samplers,
    "schedule": _schedules,
    "schedules": _schedules,
    "model": partial(_weights, "model"),
    "base": partial(_weights, "model"),
    "refiner": partial(_weights, "model"),
    "loras": partial(_weights, "lora"),
    "vae": partial(_weights, "vae"),
    "decoder": partial(_weights, "decoder"),
    "embeddings": partial(_weights, "embedding"),
}
LISTS = ("samplers", "schedules")  # whose values are separated by commas
