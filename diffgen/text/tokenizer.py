"""CLIP's tokenizer: lower-cased byte-pair encoding (Radford et al., arXiv:2103.00020, section 2.4).

It matches transformers' `CLIPTokenizer` id for id.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from diffgen.errors import ConfigError, UsageError, is_text, shown
from diffgen.jsonfile import JsonObject
from diffgen.models.config import ClipTextConfig
from diffgen.text.added_tokens import add_tokens, as_token, series
from diffgen.text.vocabulary import Vocabulary, read_vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
BYTE_SPACE = "\u0120"  # the letter for a space in byte-level vocabularies
MIN_LENGTH = 3  # a start, an end and a word between them
_log = logging.getLogger("diffgen")
ROLES = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}


@dataclass(frozen=True, slots=True)
class Tokens:
    """One prompt as input of the text encoder.

    `ids` has the encoder's full length: start, prompt, end, padding. `end` is the index of the
    first end token. `cut` is the text that did not fit, as typed; empty if all did.
    """

    ids: tuple[int, ...]
    end: int
    cut: str


class Tokenizer:
    """Turns prompts into token ids."""

    def __init__(
        self,
        encoder: tokenizers.Tokenizer,
        *,
        start: int,
        end: int,
        pad: int,
        max_tokens: int,
        written_out: Callable[[str], str] = str,
    ) -> None:
        self.max_tokens = max_tokens
        self.start, self.end, self.pad = start, end, pad
        self.comma = encoder.token_to_id(",</w>")  # None where the vocabulary has none
        self._encoder, self._written_out = encoder, written_out
        self._bytes = decoders.ByteLevel()

    @property
    def room(self) -> int:
        """The number of tokens that fit between the start and the end."""
        return self.max_tokens - 2

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        max_tokens: int = 77,
        pad: str | None = None,
        vocab_size: int | None = None,
    ) -> Self:
        """Read vocab.json and merges.txt, or else tokenizer.json, and the special tokens.

        `max_tokens` is the length that the text encoder takes; the folder may ask for less. `pad`
        overrules the folder's padding. `vocab_size` is the number of tokens of the text encoder.
        Raises ConfigError for a missing or malformed file, or one with more tokens.
        """
        options, places = _read_options(folder)
        if pad:
            places = (JsonObject(options.path, {"pad_token": pad}), *places)
        vocabulary = read_vocabulary(folder)
        special = {role: _role_token(places, role) for role in ROLES}
        _check_size(folder, vocabulary, vocab_size)
        added = add_tokens(
            folder, vocabulary, places, [t.content for t in special.values()], vocab_size
        )
        _check_special(folder, special.values(), vocabulary)
        _note_spare(folder, vocabulary, vocab_size)
        encoder = byte_pair_encoder(vocabulary, unknown=special["unk_token"].content)
        # Of two entries for one token the later wins, as in transformers.
        encoder.add_tokens([*special.values(), *added])
        return cls(
            encoder,
            written_out=series({token.content for token in added}),
            start=vocabulary.ids[special["bos_token"].content],
            end=vocabulary.ids[special["eos_token"].content],
            pad=vocabulary.ids[special["pad_token"].content],
            max_tokens=min(max_tokens, _length(options, max_tokens)),
        )

    def encode(self, prompt: str) -> Tokens:
        """The ids of one prompt, cut or padded to `max_tokens`. The prompt may be empty.

        Raises UsageError for a string with stray surrogates: bytes that were not UTF-8.
        """
        prompt = self._written_out(prompt)
        encoding = self._encoded(prompt)
        ids = [self.start, *encoding.ids[: self.room], self.end]
        ids += [self.pad] * (self.max_tokens - len(ids))
        cut = _text_from(prompt, encoding, self.room) if len(encoding.ids) > self.room else ""
        return Tokens(tuple(ids), ids.index(self.end), cut)

    def ids(self, text: str) -> list[int]:
        """The ids of a text of any length, without special tokens. Raises as `encode`."""
        return self._encoded(self._written_out(text)).ids

    def spells(self, prompt: str) -> bool:
        """Whether a non-ASCII prompt is spelled in single bytes, none of its words being known."""
        pieces = self._encoder.encode(prompt, add_special_tokens=False).tokens
        return not prompt.isascii() and all(len(p.removesuffix("</w>")) == 1 for p in pieces)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as words, with a space after each; bytes that are not text as U+FFFD."""
        spelled = (self._encoder.id_to_token(token) or "" for token in ids)
        decoded: str = self._bytes.decode([word.replace("</w>", BYTE_SPACE) for word in spelled])
        return decoded.strip()

    def _encoded(self, text: str) -> tokenizers.Encoding:
        if not is_text(text):
            raise UsageError(f"the prompt {text!a} is not valid Unicode text; use UTF-8")
        return self._encoder.encode(text, add_special_tokens=False)


def load_tokenizers(
    folders: Sequence[Path], configs: Sequence[ClipTextConfig]
) -> tuple[Tokenizer, ...]:
    """One tokenizer per text encoder. Raises ConfigError for a vocabulary of another size."""
    return tuple(
        Tokenizer.from_folder(
            folder, max_tokens=config.max_tokens, pad=config.pad, vocab_size=config.vocab_size
        )
        for folder, config in zip(folders, configs, strict=True)
    )


def _text_from(prompt: str, encoding: tokenizers.Encoding, index: int) -> str:
    """The prompt from token `index` on, extended to the start of its word."""
    words = encoding.word_ids
    first = words.index(words[index]) or index
    return prompt[encoding.offsets[first][0] :].strip()


def byte_pair_encoder(vocabulary: Vocabulary, *, unknown: str) -> tokenizers.Tokenizer:
    """CLIP's normalisation, division into words and byte-pair encoding, without special tokens."""
    encoder = tokenizers.Tokenizer(
        models.BPE(vocabulary.ids, vocabulary.merges, end_of_word_suffix="</w>", unk_token=unknown)
    )
    encoder.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return encoder


def _read_options(folder: Path) -> tuple[JsonObject, tuple[JsonObject, ...]]:
    """tokenizer_config.json, and the files that may list special tokens, by precedence.

    In folders of the old kind special_tokens_map.json comes first.
    """
    config, old = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    options = JsonObject.read(config) if os.path.lexists(config) else JsonObject(config, {})
    if os.path.lexists(old) and "added_tokens_decoder" not in options.data:
        return options, (JsonObject.read(old), options)
    return options, (options,)


def _check_special(folder: Path, tokens: Iterable[AddedToken], vocabulary: Vocabulary) -> None:
    for token in tokens:
        if token.content not in vocabulary.ids:
            raise ConfigError(f"{folder}: the vocabulary lacks {shown(token.content)}")


def _check_size(folder: Path, vocabulary: Vocabulary, vocab_size: int | None) -> None:
    largest = max(vocabulary.ids.values(), default=0)
    if vocab_size is not None and largest >= vocab_size:
        raise ConfigError(
            f"{folder}: the vocabulary has ids up to {largest}, where the text encoder knows "
            f"{vocab_size} tokens (vocab_size)"
        )


def _note_spare(folder: Path, vocabulary: Vocabulary, vocab_size: int | None) -> None:
    largest = max(vocabulary.ids.values(), default=0)
    if vocab_size is not None and largest < vocab_size - 1:
        _log.warning(
            "%s: the vocabulary has %d tokens, where the text encoder knows %d (vocab_size); "
            "is it another model's?",
            *(folder, largest + 1, vocab_size),
        )


def _length(options: JsonObject, default: int) -> int:
    length = options.get("model_max_length", default)
    if length < MIN_LENGTH:
        name = options.named("model_max_length")
        raise ConfigError(f"{name} must be at least {MIN_LENGTH}, not {shown(length)}")
    return length


def _role_token(places: Sequence[JsonObject], role: str) -> AddedToken:
    default = JsonObject(places[-1].path, {role: ROLES[role]})
    found = next(place for place in (*places, default) if place.data.get(role) is not None)
    entry = found.data[role]
    token = {"content": entry, "special": True} if isinstance(entry, str) else entry
    return as_token(found, role, token)
