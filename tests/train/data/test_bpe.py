"""Vocabularies learned from captions: CLIP's format, the same each time, kept with the run."""

import ast
import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from training import Listener, make_recipe
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from diffgen.errors import ConfigError, UsageError
from diffgen.text.tokenizer import Tokenizer
from diffgen.train import run
from diffgen.train.data.bpe import learn_vocabulary, training_captions
from diffgen.train.metrics import read_rows

ROOT = Path(__file__).parents[3]
WORDS = {"abcd": 10, "abc": 7, "ab": 4, "xbcd": 2}
PROMPTS = [
    "a red square",
    "",
    "RED, and Blue!",
    "it's gr\u00fcn: na\u00efve 42 x4",
    "\u4f60\u597d \U0001f600",
    "<|endoftext|> squares",
    "yellow " * 30,
]
CAPTIONS = {"model.tokenizer": "captions", "model.text.vocab_size": 540, "run.steps": 4}


def merges_by_hand(words, count):
    """Sennrich et al., arXiv:1508.07909, algorithm 1."""
    split = {(*word[:-1], word[-1] + "</w>"): n for word, n in words.items()}
    merges = []
    for _ in range(count):
        pairs = Counter()
        for parts, n in split.items():
            for pair in pairwise(parts):
                pairs[pair] += n
        (best, most), (_, second) = pairs.most_common(2)
        assert most > second, "the example must not have ties"
        merges.append(best)
        new = {}
        for parts, n in split.items():
            joined = list(parts)
            for i in range(len(joined) - 2, -1, -1):
                if tuple(joined[i : i + 2]) == best:
                    joined[i : i + 2] = ["".join(best)]
            new[tuple(joined)] = n
        split = new
    return merges


def test_merges_are_those_of_the_paper():
    captions = [word for word, n in WORDS.items() for _ in range(n)]
    assert learn_vocabulary(captions, 514 + 5).merges == merges_by_hand(WORDS, 5)


def test_the_order_is_clips():
    vocabulary = learn_vocabulary(["a red barns"] * 3, 520)
    tokens = list(vocabulary.ids)
    assert list(vocabulary.ids.values()) == list(range(520))
    letters = list(bytes_to_unicode().values())
    assert tokens[:512] == [*letters, *(f"{letter}</w>" for letter in letters)]
    assert tokens[512:518] == ["".join(pair) for pair in vocabulary.merges]
    assert tokens[518:] == ["<|startoftext|>", "<|endoftext|>"]


def test_what_occurs_once_is_not_merged():
    vocabulary = learn_vocabulary(["one two", "two"], 1000)
    assert list(vocabulary.ids)[512:-2] == ["tw", "two</w>"]


def test_another_process_learns_the_same():
    """From many pairs as frequent as each other."""
    code = (
        "from diffgen.train.data.bpe import learn_vocabulary\n"
        "words = [a + b + c for a in 'abcdef' for b in 'ghijk' for c in 'lmnop']\n"
        "print(learn_vocabulary([w + ' ' + w for w in words], 700).merges)"
    )
    command = [sys.executable, "-c", code]
    printed = {
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for _ in range(3)
    }
    assert len(printed) == 1
    assert len(ast.literal_eval(printed.pop())) > 100


def test_held_out_captions_do_not_count(squares):
    everything = make_recipe(squares, {**CAPTIONS, "data.validation": 0})
    assert len(training_captions(everything)) == 16
    assert len(training_captions(make_recipe(squares, CAPTIONS))) == 12


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """A run that learned its vocabulary."""
    folder = tmp_path_factory.mktemp("trained")
    listener = Listener()
    run.train(make_recipe(squares, CAPTIONS), folder, resume=False, reporter=listener)
    return folder, listener.losses


def test_the_exported_vocabulary_is_transformers_too(trained):
    folder, _ = trained
    place = folder / "model" / "tokenizer"
    for name in ("vocab.json", "merges.txt"):
        assert (place / name).read_bytes() == (folder / "tokenizer" / name).read_bytes()
    ids = json.loads((place / "vocab.json").read_text())
    assert "square</w>" in ids
    assert len(ids) <= 540
    ours, theirs = Tokenizer.from_folder(place), CLIPTokenizer.from_pretrained(place)
    assert ours.max_tokens == theirs.model_max_length == 16
    for prompt in PROMPTS:
        expected = theirs(prompt, padding="max_length", truncation=True).input_ids
        assert list(ours.encode(prompt).ids) == expected
    config = json.loads((folder / "model" / "text_encoder" / "config.json").read_text())
    assert config["eos_token_id"] == len(ids) - 1


def test_a_run_goes_on_with_its_own(squares, trained, tmp_path):
    folder, losses = trained
    recipe = make_recipe(squares, CAPTIONS)
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path, resume=False, reporter=Listener(fail_at=3))
    # Whatever the library would learn today, the run's own vocabulary counts.
    merges = tmp_path / "tokenizer" / "merges.txt"
    assert merges.read_bytes() == (folder / "tokenizer" / "merges.txt").read_bytes()
    before = merges.stat().st_mtime_ns
    run.train(recipe, tmp_path, resume=True, reporter=Listener())
    assert merges.stat().st_mtime_ns == before
    again = [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl") if "loss" in row]
    assert again[-2:] == losses[-2:]
    (tmp_path / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(UsageError, match="the vocabulary this run learned, is missing"):
        run.train(recipe, tmp_path, resume=True, reporter=Listener())


def test_a_dry_run_leaves_nothing(squares, tmp_path):
    run.dry_run(make_recipe(squares, CAPTIONS), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.text.vocab_size": 513}, "vocab_size 513 is too small .* 514"),
        ({"model": {"base": "storybook", "tokenizer": "captions"}}, r"drop model\.tokenizer"),
    ],
)
def test_no_vocabulary_to_learn(squares, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_recipe(squares, {**CAPTIONS, **changes} if "model" not in changes else changes)
