"""The learned embeddings that A1111 lists in a picture by name and hash: found, or missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from diffgen.errors import ConfigError, one_line
from diffgen.jsonfile import parse_json
from diffgen.weights.finding import find_embedding

LISTED = "TI hashes"
TABLE, PREFIX = "Hashes", "embed:"  # as other programs write them, with those of models


def learned_words(named: Mapping[str, str], notes: list[str]) -> list[str]:
    """`WORD=FILE` for each embedding that a picture lists; what is missing is noted."""
    found = []
    for name, digits in dict(_listed(named)).items():
        path, same = find_embedding(name, digits)
        said = one_line(name, 60)
        if path is None:
            notes.append(
                f"the embedding {said} ({digits or 'no hash'}) is not here, so its name counts as "
                f"words; --embedding {said}=FILE gives it"
            )
            continue
        if not same:
            notes.append(f"{path} is not the embedding {said} of the picture, which is {digits}")
        found.append(f"{name}={path}")
    return found


def _listed(named: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for item in named.get(LISTED, "").split(","):
        name, colon, digits = item.rpartition(":")
        if colon and name.strip():
            yield name.strip(), digits.strip().lower()
    with suppress(ConfigError):
        table = parse_json(named.get(TABLE, "{}"), TABLE)
        for key, digits in table.items() if isinstance(table, dict) else ():
            if key.startswith(PREFIX) and isinstance(digits, str):
                yield key.removeprefix(PREFIX), digits.lower()
