"""The files of a byte-pair vocabulary: ids of tokens, and which pairs merge first.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.errors import ConfigError
from diffgen.jsonfile import JsonObject


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
        model = JsonObject.read(whole).data.get("model")
        model = model if isinstance(model, dict) else {}
        return _checked(whole, model.get("vocab"), model.get("merges") or [])
    ids = JsonObject.read(folder / "vocab.json").data
    path = folder / "merges.txt"
    return _checked(path, ids, _read_merges(path))


def _read_merges(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # also turns \r\n into \n
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; is the download complete?") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    return [line for line in lines if line.strip() and not line.startswith("#version")]


def _checked(path: Path, ids: Any, merges: Iterable[Any]) -> Vocabulary:
    if not isinstance(ids, dict) or not all(type(number) is int for number in ids.values()):
        raise ConfigError(f"{path.parent}: the vocabulary should map tokens to whole numbers.")
    return Vocabulary(dict(ids), [_checked_pair(path, ids, merge) for merge in merges])


def _checked_pair(path: Path, ids: dict[str, int], merge: Any) -> tuple[str, str]:
    pair = merge.split() if isinstance(merge, str) else merge
    if len(pair) != 2 or any(part not in ids for part in (*pair, "".join(pair))):
        raise ConfigError(f"{path}: the merge {merge!r} does not belong to the vocabulary.")
    left, right = pair
    return left, right
