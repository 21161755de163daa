"""File names of pictures, by a template: `{line:03}-{seed}-{sampler}-{prompt:40}.{ext}`.

Any prompt gives a name valid on every system: no separators, no control characters, none of
Windows' devices, never too long.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Self

from diffgen.errors import UsageError, did_you_mean, shown

LONGEST = 40  # characters of a text in a name
LONGEST_BYTES = 120  # of a text; file systems take 255, some 143, for the whole name
NAME_BYTES = 200  # of a name before its suffix; a number may come between
JOINERS = re.compile("[\u200d\ufe00-\ufe0f]")  # joiners and variation selectors of emoji
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
SPEC = re.compile(r"0?[1-9][0-9]{0,2}|")

Fields = Mapping[str, Any]
# Fields of a template: keys of a picture's record, and its line in the prompt file.
FIELDS: dict[str, Callable[[Fields], Any]] = {
    "prompt": lambda record: record["prompt"],
    "negative": lambda record: record["negative"] or "none",
    "seed": lambda record: record["seed"],
    "line": lambda record: record.get("line") or 1,
    "sampler": lambda record: record["sampler"],
    "schedule": lambda record: record["schedule"] or "list",
    "steps": lambda record: record["steps"],
    "guidance": lambda record: f"{record['guidance_scale']:g}",
    "width": lambda record: record["width"],
    "height": lambda record: record["height"],
    "model": lambda record: record["model"],
}


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A checked template: pieces of text, each followed by a field and its width."""

    pieces: tuple[tuple[str, str | None, str], ...]

    @classmethod
    def parse(cls, text: str, *, suffixes: tuple[str, ...] = ()) -> Self:
        """Parse a template. Its suffix must be one of `suffixes`; without one it gets `.{ext}`.

        Raises UsageError.
        """
        try:
            found = list(Formatter().parse(text))
        except ValueError as error:
            raise UsageError(f"--output-template {shown(text)}: {error}") from None
        for plain, name, spec, conversion in found:
            _check_piece(plain, name, spec or "", conversion)
        parsed = [(plain, name, spec or "") for plain, name, spec, _ in found]
        if not any(name and name != "ext" for _, name, _ in parsed):
            raise UsageError(f"--output-template {shown(text)}: it gives every picture one name")
        return cls(tuple(_with_suffix(parsed, text, suffixes)))

    def stem(self, record: Fields) -> str:
        """The name without suffix."""
        texts = [plain + _filled(name, spec, record) for plain, name, spec in self.pieces]
        whole = FORBIDDEN.sub("-", unicodedata.normalize("NFC", "".join(texts))).strip(" .")
        whole = _writable(_cut(whole, NAME_BYTES)) or "unconditional"
        return f"_{whole}" if DEVICES.fullmatch(whole) else whole


def slug(prompt: str, longest: int = LONGEST) -> str:
    """The words of a prompt, or the names of its signs, as part of a file name.

    Only an empty prompt is "unconditional".
    """
    text = JOINERS.sub("", unicodedata.normalize("NFC", prompt)).lower()
    words = _words(text)
    if not words:
        names = (unicodedata.name(sign, f"u{ord(sign):x}") for sign in text if not sign.isspace())
        words = _words(" ".join(names).lower())
    if len(words) > longest:
        words = words[: longest + 1].rpartition("-")[0] or words[:longest]
    return _cut(words, LONGEST_BYTES) or "unconditional"


def _check_piece(plain: str, name: str | None, spec: str, conversion: str | None) -> None:
    if bad := FORBIDDEN.search(plain):
        raise UsageError(
            f"--output-template: {shown(bad[0])} cannot be in a name; -o FOLDER says where"
        )
    if name is not None and name not in FIELDS and name != "ext":
        known = ", ".join(f"{{{field}}}" for field in [*FIELDS, "ext"])
        hint = did_you_mean(name, FIELDS) or f"; there are {known}"
        raise UsageError(f"--output-template: there is no {shown(f'{{{name}}}')}{hint}")
    if conversion:
        raise UsageError(
            f"--output-template: {shown(f'{{{name}!{conversion}}}')}: fields have no conversions; "
            f"leave out !{conversion}"
        )
    if not SPEC.fullmatch(spec) or (name == "ext" and spec):
        raise UsageError(
            f"--output-template: {shown(f'{{{name}:{spec}}}')}: behind the colon stands how many "
            "characters, for a number with a 0 first: {line:03}, {prompt:40}"
        )


def _with_suffix(
    parsed: list[tuple[str, str | None, str]], text: str, suffixes: tuple[str, ...]
) -> list[tuple[str, str | None, str]]:
    """The pieces without `.{ext}` or a suffix: the picture's format decides those."""
    plain, name, _ = parsed[-1]
    if name == "ext" and plain.endswith("."):
        parsed[-1] = (plain[:-1], None, "")
    elif any(name == "ext" for _, name, _ in parsed):
        raise UsageError(f"--output-template {shown(text)}: .{{ext}} stands at the end")
    elif name is None and (found := plain.rpartition(".")[2].lower()) in suffixes:
        parsed[-1] = (plain[: -len(found) - 1], None, "")
    return parsed


def _filled(name: str | None, spec: str, record: Fields) -> str:
    if name is None:
        return ""
    value = FIELDS[name](record)
    if isinstance(value, int):
        return f"{value:{spec}}"
    return slug(str(value), int(spec or LONGEST)) if name != "guidance" else str(value)


def _words(text: str) -> str:
    """Letters, digits and combining marks; "-" for all between."""
    kept = (c if c.isalnum() or unicodedata.category(c) in ("Mn", "Mc") else " " for c in text)
    return "-".join("".join(kept).split())


def _writable(name: str) -> str:
    """A name with "_" for what this system's file names cannot hold: a locale may know ASCII only."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        coding = sys.getfilesystemencoding()
        return name.encode(coding, "replace").decode(coding).replace("?", "_")
    return name


def _cut(text: str, length: int) -> str:
    """At most this many bytes of UTF-8."""
    return text.encode(errors="replace")[:length].decode(errors="ignore")
