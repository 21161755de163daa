"""The standard streams, made so that neither a word nor a result can end a run.

Words go to stderr: where nobody can read them any more, they are dropped. Results go to stdout, as
UTF-8 whatever the locale says, file names as the bytes they are: a failure is kept, for the exit
code to tell.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TextIO

ESCAPED = "diffgen.escaped"


class GuardedStream(io.TextIOBase):
    """A text stream that keeps its first failure instead of raising it, and drops what follows.

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
        """Whether there never was such a stream."""
        return self._inner is None

    @property
    def buffer(self) -> BinaryIO:
        """The bytes below, which do raise."""
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
    """Let what is still buffered go nowhere: it would raise again when the interpreter ends."""
    if stream is not None:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stdout_is_closed() -> bool:
    """Whether this program was started without one."""
    return isinstance(sys.stdout, GuardedStream) and sys.stdout.is_closed


@contextmanager
def guarded_streams() -> Iterator[GuardedStream]:
    """Guard both streams while a program runs. Gives the one for results."""
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
    """The next file opened must not become stdout, to receive what libraries print there."""
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
    """Bytes of file names that are no UTF-8 as they are, any other stray surrogate as `\\ud800`."""
    assert isinstance(error, UnicodeEncodeError)
    with suppress(UnicodeEncodeError):
        piece = error.object[error.start : error.end]
        return piece.encode("utf-8", "surrogateescape"), error.end
    return codecs.backslashreplace_errors(error)


def _closed() -> OSError:
    return OSError(errno.EBADF, "it is closed")


codecs.register_error(ESCAPED, _escape)
