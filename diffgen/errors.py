"""Everything that can go wrong for a user, as one tree.

DiffgenError            exit code 1: something we met could not be used
|-- UsageError          exit code 2: the request itself is wrong
|-- ConfigError         a model's JSON or TOML file is malformed or asks for what we lack
|-- WeightsError        a weights file is missing, damaged or does not fit its config
|   `-- UnsupportedCheckpoint   a readable checkpoint of a kind we do not load
|-- PictureError        a picture to begin with is damaged or of a kind that is not read
|-- DeviceError         the device or number format asked for cannot be used here
|   |-- OutOfMemory     what was asked for at once does not fit
|   `-- DeviceLost      the device failed, and computes nothing more in this process
`-- OutputError         a result cannot be written

A message says what is wrong, in which file, key or line, and what to do. It is one line.
"""

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from unicodedata import category

LINE_AT_MOST = 1500  # characters of a message
SHOWN_AT_MOST = 60  # characters of a value in an error line
NAMED_AT_MOST = 3  # of many names
NAME_AT_MOST = 200  # characters
JOINERS = "\u200c\u200d"  # parts of words in Persian, and of emoji


class DiffgenError(Exception):
    """Base of all errors meant for the user."""

    exit_code = 1


class UsageError(DiffgenError):
    """The request is wrong: an unknown name, a size that does not fit, an empty list."""

    exit_code = 2


class UnreadSyntax(UsageError):
    """A prompt holds syntax of other programs that would be drawn as plain words."""

    def __init__(self, pieces: Sequence[str]) -> None:
        super().__init__(f"prompts hold syntax that is not read: {'; '.join(pieces)}")


class ConfigError(DiffgenError):
    """A configuration file is malformed or asks for something diffgen does not have."""


class WeightsError(DiffgenError):
    """A weights file is missing, damaged, or does not fit its configuration."""


class UnsupportedCheckpoint(WeightsError):
    """The checkpoint can be read but is of a kind diffgen does not load."""


class PictureError(DiffgenError):
    """A picture to begin with is damaged, too large, or of a kind that is not read."""


class DeviceError(DiffgenError):
    """The device or number format cannot be used on this machine."""


class OutOfMemory(DeviceError):
    """Memory ran out; less at a time may fit."""


class DeviceLost(DeviceError):
    """The device failed: nothing more can be computed with it until the program is started anew."""


class OutputError(DiffgenError):
    """A picture or report cannot be written."""


def reason_of(error: Exception) -> str:
    """The text of an error line for any exception: diffgen's own message, else type and message."""
    if isinstance(error, DiffgenError):
        return str(error)
    words = f": {error}" if str(error) else ""
    return f"unexpected {type(error).__name__}{words} (-v shows where)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`'. Did you mean "euler"?'` for the nearest known name in any case, or an empty string.

    For the end of an error line, which has no period of its own.
    """
    folded = {each.casefold(): each for each in known}
    matches = get_close_matches(name.casefold(), folded, n=1)
    return f'. Did you mean "{folded[matches[0]]}"?' if matches else ""


def shown(value: object) -> str:
    """A value as it stands in an error line: as JSON in ASCII, cut where it is long."""
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # integers of thousands of digits, endless nesting
        return "a value too large to show"
    return text if len(text) <= SHOWN_AT_MOST else f"{text[:SHOWN_AT_MOST]}..."


def some(names: Sequence[str]) -> str:
    """`'a, b, c and 7 more'`: the first few names, each cut where it is long."""
    more = len(names) - NAMED_AT_MOST
    first = ", ".join(one_line(name, NAME_AT_MOST) for name in names[:NAMED_AT_MOST])
    return first + (f" and {more} more" if more > 0 else "")


def one_line(text: str, at_most: int = LINE_AT_MOST) -> str:
    """Text for one line of a terminal, cut in its middle where it is long.

    Characters that steer a terminal, start another line, reverse the order of letters or stand for
    bytes that are no text are written as Python escapes: names and files of others hold them.
    """
    if len(text) > at_most:
        kept = at_most // 3
        cut = len(text) - 3 * kept
        text = f"{text[: 2 * kept]}[... {cut} characters ...]{text[-kept:]}"
    return "".join(char if _is_harmless(char) else _escaped(char) for char in text)


def is_text(text: str) -> bool:
    """Whether a word of a command line is text, not bytes that are no UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _is_harmless(char: str) -> bool:
    return char in JOINERS or category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def in_bytes(size: int) -> str:
    """A size as `6.94 GB`, in powers of ten."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
