"""Write what storybook knows: `python -m scripts.storybook.known_words --out DIR`.

DIR/words.json holds every word of the captions it learned from, and for words that it never saw
what comes near (near.txt); and which words name things, one of which is in every picture. `generate`
tells users of all that.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts.storybook.objects import HERE, kinds_of
from scripts.storybook.vocabulary import texts

STARS = "stars"  # of the night, most often
SCENES = 4000  # their captions hold every word of the world but some names, which are added


def known_words(scenes: int = SCENES) -> list[str]:
    """All words of the captions of the wide world, lower-cased and sorted."""
    return sorted(
        {word for text in [*texts("wide", scenes, 1), *_names()] for word in _words(text)}
    )


def things() -> list[str]:
    """The nouns of all things of the wide world, one and many, lower-cased and sorted."""
    return sorted({_words(name)[-1] for name in _names()} - {STARS})


def near_words(lines: Iterable[str]) -> dict[str, list[str]]:
    """`known: unknown ...` by the unknown word: what to say instead, the best first."""
    near: dict[str, list[str]] = {}
    for line in lines:
        known, _, others = line.partition(":")
        for other in others.split():
            near.setdefault(other, []).append(known)
    return near


def _names() -> list[str]:
    return [text for kind in kinds_of("wide") for text in (kind.name, kind.plural, *kind.also)]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def main(argv: list[str] | None = None) -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.known_words", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    words = known_words()
    lines = (HERE / "near.txt").read_text(encoding="utf-8").splitlines()
    near = near_words(line for line in lines if not line.startswith("#"))
    near = {word: said for word, said in near.items() if word not in words}
    table = {"words": words, "things": things(), "near": near}
    (arguments.out / "words.json").write_text(json.dumps(table, indent=0) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
