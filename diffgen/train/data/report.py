"""Report on a data set: counts, and the pictures that are skipped or changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from unicodedata import category

from diffgen.errors import NAME_AT_MOST, one_line
from diffgen.train.data.pictures import Entry
from diffgen.types import Size

NAMED_AT_MOST = 10

CUT = "captions longer than the text encoder reads, cut"
ENLARGED = "pictures smaller than what they are trained at, enlarged"
FAILED = (
    "damaged pictures, found while decoding, left out; the next of their size comes twice as often"
)


@dataclass(slots=True)
class Found:
    """The pictures of a data set; `notes` holds names of files by the remark about them."""

    entries: list[Entry] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, about: str, names: Iterable[str]) -> None:
        """Remember files to be named, if there are any."""
        if names := list(names):
            self.notes.setdefault(about, []).extend(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What was found. `failed` names the damaged pictures met while decoding so far.

    `fingerprint` is a hash of the usable pictures' names, bytes and captions; it does not depend
    on where they lie. `enlarged` and `long_captions` are names of pictures, the latter once for
    each caption that is cut.
    """

    pictures: int
    held_out: int
    captions: int
    long_captions: tuple[str, ...] = ()
    enlarged: tuple[str, ...] = ()
    notes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    failed: tuple[str, ...] = ()
    sizes: tuple[tuple[Size, int], ...] = ()  # (width, height) and the number of pictures
    fingerprint: str = ""

    @property
    def remarks(self) -> dict[str, str]:
        """What is left out, cut, enlarged or replaced, and the first names of each kind."""
        own = {FAILED: self.failed, CUT: self.long_captions, ENLARGED: self.enlarged}
        named = {**dict(self.notes), **own}
        return {about: listed(names) for about, names in named.items() if names}

    @property
    def lines(self) -> list[str]:
        """The report in lines."""
        head = (
            f"data: {self.pictures} pictures to learn from, {self.held_out} held out, "
            f"{self.captions} captions"
        )
        sizes = ", ".join(f"{width} x {height} ({n})" for (width, height), n in self.sizes)
        more = [f"sizes: {sizes}"] if len(self.sizes) > 1 else []
        return [head, *more, *(f"{about}: {names}" for about, names in self.remarks.items())]


def some(names: Sequence[str]) -> str:
    """`'3 files (a.png, b.png, c.png)'`, with the first ten names."""
    return listed(names).replace(" ", " file " if len(names) == 1 else " files ", 1)


def listed(names: Sequence[str]) -> str:
    """`'3 (a.png, b.png, c.png)'`, with the first ten names."""
    more = len(names) - NAMED_AT_MOST
    first = ", ".join(one_line(printable(n), NAME_AT_MOST) for n in names[:NAMED_AT_MOST])
    return f"{len(names)} ({first}{f' and {more} more' if more > 0 else ''})"


def printable(name: str) -> str:
    """A file's name on one line of any terminal: what cannot be shown, as Python escapes it."""
    return "".join(c if c.isprintable() or category(c) == "Zs" else ascii(c)[1:-1] for c in name)
