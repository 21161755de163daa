"""Tokens added to a vocabulary, in all the places where a tokenizer's folder lists them.

transformers 4 writes `added_tokens_decoder` in tokenizer_config.json, before that it wrote
added_tokens.json, and 5 writes `added_tokens` in tokenizer.json.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken

from diffgen.errors import ConfigError, shown, some
from diffgen.jsonfile import JsonObject
from diffgen.text.vocabulary import MAX_FILE, MAX_ID, Vocabulary, check_text

Numbered: TypeAlias = tuple[AddedToken, int]

_log = logging.getLogger("diffgen")
UNNUMBERED = ("additional_special_tokens", "extra_special_tokens")
FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")


def add_tokens(
    folder: Path,
    vocabulary: Vocabulary,
    places: Sequence[JsonObject],
    roles: Collection[str],
    vocab_size: int | None,
) -> list[AddedToken]:
    """Give the vocabulary the tokens that were added to it, with the ids of where they are listed.

    `places` are the files that speak of special tokens, `roles` those that start, end and fill
    prompts. One beyond the `vocab_size` of the text encoder has no vector and is left out, which is
    said; a role raises ConfigError for that. So do entries of another form and ids given twice.
    """
    numbered = list(_numbered(folder, places[-1]))
    ids: dict[str, int] = {}
    for token, number in numbered:  # the last place is today's, and counts
        ids[token.content] = number
    special = [token for place in places for token in _unnumbered(place)]
    for token in special:
        last = max([*vocabulary.ids.values(), *ids.values()], default=-1)
        if token.content not in vocabulary.ids:
            ids.setdefault(token.content, last + 1)
    ids = {content: number for content, number in ids.items() if content not in vocabulary.ids}
    beyond = {t for t, number in ids.items() if vocab_size is not None and number >= vocab_size}
    _check_beyond(folder, beyond, roles, vocab_size)
    vocabulary.ids.update({t: number for t, number in ids.items() if t not in beyond})
    _check_twice(folder, vocabulary)
    return [t for t in (*special, *(t for t, _ in numbered)) if t.content in vocabulary.ids]


def _numbered(folder: Path, options: JsonObject) -> Iterator[Numbered]:
    """Tokens with their ids, by all versions; those of the newer ones last."""
    old, new = folder / "added_tokens.json", folder / "tokenizer.json"
    if old.exists():
        listed = JsonObject.read(old)
        for content in listed.data:
            check_text(old, content)
            yield AddedToken(content, normalized=True), _checked(listed, content)
    if new.exists():
        whole = JsonObject.read(new, at_most=MAX_FILE)
        entries = whole.data.get("added_tokens") or []
        for entry in entries if isinstance(entries, list) else [entries]:
            token = as_token(whole, "added_tokens", entry)
            yield token, _checked(JsonObject(new, entry), "id")
    decoder = options.table("added_tokens_decoder")
    for number, entry in decoder.items():
        token = as_token(options, "added_tokens_decoder", entry)
        plain = number.isdecimal() and len(number) < len(str(MAX_ID)) + 1
        found = {token.content: int(number) if plain else number}
        yield token, _checked(JsonObject(options.path, found), token.content)


def _checked(table: JsonObject, key: str) -> int:
    number = table.get(key, -1)
    if not 0 <= number <= MAX_ID:
        raise ConfigError(f"{table.named(key)} should be an id from 0 to {MAX_ID}, not {number}")
    return number


def _unnumbered(place: JsonObject) -> Iterator[AddedToken]:
    """Special tokens that are listed without an id: one that has none elsewhere gets the next."""
    for key in UNNUMBERED:
        entries = place.data.get(key) or []
        for entry in entries.values() if isinstance(entries, dict) else entries:
            token = {"content": entry, "special": True} if isinstance(entry, str) else entry
            yield as_token(place, key, token)


def _check_beyond(
    folder: Path, beyond: Collection[str], roles: Collection[str], vocab_size: int | None
) -> None:
    if not beyond:
        return
    knows = f"the text encoder knows {vocab_size} tokens (vocab_size)"
    if needed := [content for content in roles if content in beyond]:
        raise ConfigError(f"{folder}: the id of {shown(needed[0])} is too large: {knows}")
    _log.warning(
        "%s: added tokens are read as plain words, as %s, and none of them is among those: %s",
        *(folder, knows, some(sorted(beyond))),
    )


def _check_twice(folder: Path, vocabulary: Vocabulary) -> None:
    owners: dict[int, str] = {}
    for content, number in vocabulary.ids.items():
        owner = owners.setdefault(number, content)
        if owner != content:
            raise ConfigError(
                f"{folder}: two tokens have the id {number}: {shown(owner)}, {shown(content)}"
            )


def as_token(options: JsonObject, key: str, entry: Any) -> AddedToken:
    """A token that is written out with its flags. Raises ConfigError for anything else."""
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise ConfigError(f'{options.named(key)} should hold a token or its "content"')
    check_text(options.path, entry["content"])
    given = {flag: bool(entry[flag]) for flag in FLAGS if flag in entry}
    return AddedToken(entry["content"], **given)


def series(contents: Collection[str]) -> Callable[[str], str]:
    """Writes out tokens that stand for several: `<cat>` for `<cat> <cat>_1 <cat>_2`.

    So textual inversion names the further vectors of one word (diffusers'
    `load_textual_inversion`).
    """
    whole = {}
    for name in contents:
        rest: list[str] = []
        while (following := f"{name}_{len(rest) + 1}") in contents:
            rest.append(following)
        if rest:
            whole[name] = " ".join([name, *rest])
    if not whole:
        return lambda text: text
    # Not where somebody wrote them out already.
    names = [
        rf"{re.escape(name)}(?!_\d|\s*{re.escape(name)}_1)"
        for name in sorted(whole, key=len, reverse=True)
    ]
    pattern = re.compile("|".join(names))
    return lambda text: pattern.sub(lambda match: whole[match[0]], text)
