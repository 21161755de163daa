"""Guarded standard streams: no failure to print can end a run.

Messages go to stderr, and are dropped if it fails. Results go to stdout, as UTF-8 whatever the
locale, file names as their raw bytes; a failure is recorded for the exit code.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

ESCAPED = "diffgen.escaped"


class GuardedStream(io.TextIOBase):
    """A text stream that records its first failure instead of raising it, and drops the rest.

    `None` stands for a stream that was closed when the program started.
    """

    def __init__(self, inner: TextIO | None) -> None:
        self._inner = inner
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        if self._inner is not None:
            self._attempt(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        if self._inner is None:
            raise io.UnsupportedOperation("fileno")
        return self._inner.fileno()

    @property
    def is_closed(self) -> bool:
        """Whether the stream was closed from the start."""
        return self._inner is None

    @property
    def buffer(self) -> BinaryIO:
        """The underlying binary stream, which raises."""
        if self._inner is None:
            raise _closed()
        return self._inner.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8" if self._inner is None else self._inner.encoding

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        if self.failure:
            return
        try:
            if self._inner is None:
                raise _closed()
            action(self._inner)
        except OSError as error:
            self.failure = error
            silence(self._inner)


def silence(stream: TextIO | GuardedStream | None) -> None:
    """Discard what is still buffered: it would raise again at the interpreter's exit."""
    if stream is not None:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stdout_is_closed() -> bool:
    """Whether the program was started with stdout closed."""
    return isinstance(sys.stdout, GuardedStream) and sys.stdout.is_closed


def stdout_file() -> Path | None:
    """The file that stdout is redirected to, where the system (Linux) tells."""
    with suppress(OSError, ValueError):
        number = sys.stdout.fileno()
        if stat.S_ISREG(os.fstat(number).st_mode):
            return Path(os.readlink(f"/proc/self/fd/{number}"))
    return None


@contextmanager
def guarded_streams() -> Iterator[GuardedStream]:
    """Guard both streams while a program runs; yields the one for results."""
    _occupy_closed_descriptors()
    results, words = GuardedStream(_as_utf8(sys.stdout)), GuardedStream(sys.stderr)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = results, words
    try:
        yield results
    finally:
        results.flush()
        sys.stdout, sys.stderr = before


def _occupy_closed_descriptors() -> None:
    """Keep the next opened file from becoming stdout, where libraries print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _as_utf8(stream: TextIO | None) -> TextIO | None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors=ESCAPED)
    return stream


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""File names' bytes as they are, other stray surrogates as `\ud800`."""
    assert isinstance(error, UnicodeEncodeError)
    with suppress(UnicodeEncodeError):
        piece = error.object[error.start : error.end]
        return piece.encode("utf-8", "surrogateescape"), error.end
    return codecs.backslashreplace_errors(error)


def _closed() -> OSError:
    return OSError(errno.EBADF, "it is closed")


codecs.register_error(ESCAPED, _escape)
