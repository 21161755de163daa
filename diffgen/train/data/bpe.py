"""A vocabulary learned from the captions of a run and saved with it.

Byte-pair encoding (Sennrich et al., arXiv:1508.07909, section 3.2) over bytes, in CLIP's format:
bytes, bytes that end a word, merges, start and end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tokenizers import pre_tokenizers, trainers

from diffgen.errors import OutputError, UsageError
from diffgen.text.tokenizer import END, START, byte_pair_encoder
from diffgen.text.vocabulary import Vocabulary, read_vocabulary
from diffgen.train.data.dataset import open_data
from diffgen.train.recipe.checks import FROM_CAPTIONS
from diffgen.train.recipe.recipe import Recipe

if TYPE_CHECKING:
    from diffgen.train.dist import World

WORD_END = "</w>"
RAREST = 2  # how often a pair must occur to be merged


def settle_vocabulary(recipe: Recipe, folder: Path, world: World, *, learned: bool) -> Recipe:
    """Replace `model.tokenizer` by a folder if its vocabulary is learned from captions.

    The first process learns it into `folder`, unless it was `learned` before the run was resumed.
    Raises UsageError if the folder is missing, OutputError if it cannot be written, and what
    `open_data` raises.
    """
    if recipe.model.tokenizer != FROM_CAPTIONS:
        return recipe
    if world.first and not learned:
        assert recipe.model.text is not None
        vocabulary = learn_vocabulary(training_captions(recipe), recipe.model.text.vocab_size)
        write_vocabulary(vocabulary, folder)
    place: Path = world.gather(folder)[0]  # also makes the others wait
    if not (place / "vocab.json").is_file():
        raise UsageError(f"{place}, the vocabulary this run learned, is missing; start a new run")
    return replace(recipe, model=replace(recipe.model, tokenizer=str(place.resolve())))


def training_captions(recipe: Recipe) -> list[str]:
    """All captions of the pictures to learn from. Raises what `open_data` raises."""
    collection = open_data(recipe.data).collection
    members = [index for group in collection.groups for index in group.members]
    return [caption for index in members for caption in collection.entries[index].captions]


def learn_vocabulary(captions: Iterable[str], size: int) -> Vocabulary:
    """At most `size` tokens; fewer where no pair is left that occurs twice.

    The same captions give the same vocabulary.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [*letters, *(letter + WORD_END for letter in letters)]
    # Pairs as frequent as each other merge by the ids of their parts. The trainer would number the
    # ends of words as it meets them, in the order of its hash tables; here that order is fixed.
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=RAREST,
        special_tokens=base,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    encoder = byte_pair_encoder(Vocabulary({}, []), unknown=END)
    # Stray surrogates are for the tokenizer to refuse, with the caption.
    encoder.train_from_iterator((c.encode(errors="ignore").decode() for c in captions), trainer)
    with TemporaryDirectory() as folder:
        encoder.model.save(folder)
        found = read_vocabulary(Path(folder)).merges
    tokens, merges = dict.fromkeys(base), []
    for pair in found:
        if len(tokens) == size - 2:
            break
        tokens["".join(pair)] = None
        merges.append(pair)
    return Vocabulary({token: i for i, token in enumerate([*tokens, START, END])}, merges)


def write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write vocab.json and merges.txt into a folder. Raises OutputError."""
    merges = "".join(f"{first} {second}\n" for first, second in vocabulary.merges)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ids = json.dumps(vocabulary.ids, ensure_ascii=False)
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
        (folder / "vocab.json").write_text(ids, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
