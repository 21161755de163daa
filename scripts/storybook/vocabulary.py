"""Learn the tokenizer's vocabulary: `python -m scripts.storybook.vocabulary --out DIR`.

From the captions of a whole world, so that a model of a narrow one can go on to learn the rest.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from diffgen.train.data.bpe import learn_vocabulary, write_vocabulary
from scripts.storybook.captions import captions
from scripts.storybook.objects import WORLD_ORDER
from scripts.storybook.scene import sample, world


def texts(name: str, count: int, seed: int) -> Iterator[str]:
    """All captions of the first scenes of a world."""
    where = world(name)
    for index in range(count):
        yield from captions(sample(where, seed, index))


def main(argv: list[str] | None = None) -> int:
    """Learn from the captions and write the folder."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.vocabulary", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", choices=WORLD_ORDER, default="wide")
    parser.add_argument("--size", type=int, default=2048, help="tokens in all, at most")
    parser.add_argument("--count", type=int, default=20000, help="scenes to read the captions of")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    lines = texts(arguments.world, arguments.count, arguments.seed)
    write_vocabulary(learn_vocabulary(lines, arguments.size), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
