"""The files of a byte-pair vocabulary: token ids and the order of merges."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError, shown
from diffgen.jsonfile import JsonObject, read_text

MAX_FILE = 16 << 20  # bytes; CLIP's largest has 3.6 million
MAX_ID = 10_000_000


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`ids` maps tokens to numbers; `merges` lists the pairs to join, earliest first."""

    ids: dict[str, int]
    merges: list[tuple[str, str]]


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read vocab.json and merges.txt, or tokenizer.json where there is no vocab.json.

    Raises ConfigError for a missing or malformed file.
    """
    whole = folder / "tokenizer.json"
    if whole.exists() and not (folder / "vocab.json").exists():
        model = JsonObject.read(whole, at_most=MAX_FILE).table("model")
        ids, merges = _checked_ids(whole, model.get("vocab")), model.get("merges") or []
        return Vocabulary(ids, _checked_merges(whole, ids, merges))
    path = folder / "vocab.json"
    ids = _checked_ids(path, JsonObject.read(path, at_most=MAX_FILE).data)
    path = folder / "merges.txt"
    return Vocabulary(ids, _checked_merges(path, ids, _read_merges(path)))


def _read_merges(path: Path) -> list[str]:
    lines = read_text(path, at_most=MAX_FILE).split("\n")
    return [line for line in lines if line.strip() and not line.startswith("#version")]


def _checked_ids(path: Path, ids: object) -> dict[str, int]:
    if not isinstance(ids, dict) or not all(type(number) is int for number in ids.values()):
        raise ConfigError(f"{path}: the vocabulary should map tokens to whole numbers")
    for token, number in ids.items():
        if not 0 <= number <= MAX_ID:
            raise ConfigError(
                f"{path}: the token {shown(token)} has the id {shown(number)}; "
                f"ids are from 0 to {MAX_ID}"
            )
    if len(set(ids.values())) < len(ids):
        twice = Counter(ids.values()).most_common(1)[0][0]
        raise ConfigError(f"{path}: two tokens have the id {twice}")
    check_text(path, "".join(ids))
    return ids


def check_text(path: Path, text: str) -> None:
    """Raise ConfigError for a lone surrogate, which JSON can express and no text contains."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise ConfigError(f"{path}: a token has half a character, {code}") from None


def _checked_merges(path: Path, ids: dict[str, int], merges: object) -> list[tuple[str, str]]:
    if not isinstance(merges, list):
        raise ConfigError(f"{path}: the merges should be a list, not {shown(merges)}")
    return [_checked_pair(path, ids, merge) for merge in merges]


def _checked_pair(path: Path, ids: dict[str, int], merge: Any) -> tuple[str, str]:
    pair = merge.split() if isinstance(merge, str) else merge
    if isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair):
        left, right = pair
        if left in ids and right in ids and left + right in ids:
            return left, right
    raise ConfigError(f"{path}: the merge {shown(merge)} does not belong to the vocabulary")
