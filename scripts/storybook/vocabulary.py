"""Learn the tokenizer's vocabulary: `python -m scripts.storybook.vocabulary --out DIR`.

Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over the captions of a world, in the
form of CLIP's tokenizer: 256 bytes, the same at the end of a word, the merges, start and end.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from scripts.storybook.captions import captions
from scripts.storybook.objects import WORLD_ORDER
from scripts.storybook.scene import sample, world

END = "</w>"
START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def texts(name: str, count: int, seed: int) -> Iterator[str]:
    """All captions of the first scenes of a world."""
    where = world(name)
    for index in range(count):
        yield from captions(sample(where, seed, index))


def learn_merges(lines: Iterable[str], count: int) -> list[tuple[str, str]]:
    """The first `count` merges."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix=END))
    tokenizer.normalizer = Lowercase()
    words = Split(WORDS, "removed", invert=True)
    tokenizer.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = BpeTrainer(
        vocab_size=2 * 256 + count,
        initial_alphabet=ByteLevel.alphabet(),
        end_of_word_suffix=END,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]][:count]


def write_vocabulary(merges: list[tuple[str, str]], folder: Path, *, max_tokens: int) -> None:
    """vocab.json, merges.txt and tokenizer_config.json as CLIPTokenizer reads them."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + END for letter in letters)]
    tokens += [a + b for a, b in merges]
    tokens += [START_TOKEN, END_TOKEN]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_tokens,
        "bos_token": START_TOKEN,
        "eos_token": END_TOKEN,
        "unk_token": END_TOKEN,
        "pad_token": END_TOKEN,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Learn from the captions and write the folder."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.vocabulary", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world", choices=WORLD_ORDER, default="wide")
    parser.add_argument("--size", type=int, default=2048, help="tokens in all")
    parser.add_argument("--count", type=int, default=20000, help="scenes to read the captions of")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    lines = texts(arguments.world, arguments.count, arguments.seed)
    merges = learn_merges(lines, arguments.size - 2 * 256 - 2)
    write_vocabulary(merges, arguments.out, max_tokens=32)
    return 0


if __name__ == "__main__":
    sys.exit(main())
