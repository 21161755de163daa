"""The only module that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from diffgen.cli.streams import GuardedStream, silence
from diffgen.errors import OutputError, one_line

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH = 160  # characters, for a terminal of unknown width
GONE = "its reader has gone away"

Aside = Callable[[], AbstractContextManager[None]]
_aside: Aside = nullcontext  # contexts that hide a bar and a preview
_lock = threading.RLock()


def print_error(message: str) -> None:
    """One line on stderr."""
    _to_stderr("error:", "31", message)


def print_note(message: str) -> None:
    """One line on stderr that is not an error."""
    _to_stderr("note:", "33", message)


def print_line(line: str) -> None:
    """One plain line on stderr."""
    _to_stderr("", "", line)


def print_event(value: Any) -> None:
    """One JSON value on a line of stderr, for programs that follow the run."""
    with _lock, _aside():
        print(json.dumps(value), file=sys.stderr, flush=True)


def print_result(line: str) -> None:
    """One line of results on stdout, flushed, so that a reader need not wait for the end.

    Raises OutputError if the reader has gone. Other failures only affect the exit code: a full disk
    under the list of pictures is no reason to stop drawing.
    """
    with _lock, _aside():
        print(line, flush=True)
    failure = getattr(sys.stdout, "failure", None)
    if isinstance(failure, BrokenPipeError):
        raise OutputError(f"cannot write to stdout: {GONE}; stopped")


def print_json(value: Any) -> None:
    """One JSON value on a line of stdout; ASCII if it contains a file name that is not UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    strange = any("\ud800" <= char <= "\udfff" for char in text)
    print_result(json.dumps(value) if strange else text)


def print_table(build: Callable[[Sequence[str]], Table], sacrifice: Sequence[str]) -> None:
    """A table on stdout, without columns of `sacrifice` that do not fit the terminal.

    `build` makes the table without the given columns. Raises OutputError as `print_result`.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    unbounded = console.options.update(width=10_000)
    for left_out in range(len(sacrifice) + 1):
        table = build(sacrifice[:left_out])
        if console.measure(table, options=unbounded).maximum <= console.width:
            break
    with console.capture() as drawn:
        console.print(table)
    print_result("\n".join(line.rstrip() for line in drawn.get().splitlines()))
    if left_out:
        names = ", ".join(sacrifice[:left_out])
        print_note(f"no room for {names}; a wider window shows them, and --json has everything")


def lost_results(stream: GuardedStream) -> str:
    """Why results did not reach stdout, as an error line; empty if they did."""
    failure = stream.failure
    if failure is None:
        return ""
    reason = GONE if isinstance(failure, BrokenPipeError) else failure.strerror
    return f"cannot write to stdout: {reason}; results were made but not printed"


@contextmanager
def reported_pipe() -> Iterator[None]:
    """Turn a failure of stdout, while a picture is written to it, into OutputError."""
    try:
        yield
    except OSError as error:
        silence(sys.stdout)
        gone = isinstance(error, BrokenPipeError)
        reason = GONE if gone else str(error.strerror)
        raise OutputError(f"cannot write to stdout: {reason}; stopped") from error


def erase_lines(count: int) -> None:
    """Erase the last lines of the terminal on stderr."""
    print(f"\x1b[{count}A\r\x1b[J", end="", file=sys.stderr, flush=True)


def free_picture(number: int) -> None:
    """Let the terminal on stderr forget a picture that it got by kitty's protocol."""
    print(f"\x1b_Ga=d,d=I,i={number},q=2\x1b\\", end="", file=sys.stderr, flush=True)


@contextmanager
def logged_notes(verbose: bool) -> Iterator[None]:
    """Show the library's log while a command runs: warnings, and with `verbose` everything."""
    with _handled(logging.getLogger("diffgen"), logging.INFO if verbose else logging.WARNING):
        yield


@contextmanager
def kept_warnings(verbose: bool) -> Iterator[None]:
    """Hide warnings of Python and of libraries from users; `verbose` shows them as notes."""
    others = logging.getLogger()
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        try:
            with _handled(others, others.level, show=verbose):
                yield
        finally:
            logging.captureWarnings(False)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Use the terminal without bars and previews."""
    with _lock, _aside():
        yield


@contextmanager
def beside(aside: Aside) -> Iterator[None]:
    """Print every line inside `aside()`, which hides a bar or preview.

    Hides nest in the order of registration.
    """
    global _aside
    before = _aside

    @contextmanager
    def both() -> Iterator[None]:
        with before(), aside():
            yield

    _aside = both
    try:
        yield
    finally:
        _aside = before


@contextmanager
def _handled(logger: logging.Logger, level: int, *, show: bool = True) -> Iterator[None]:
    handler: logging.Handler = _NoteHandler() if show else logging.NullHandler()
    before, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagates


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())
        if record.exc_info:
            for line in logging.Formatter().formatException(record.exc_info).splitlines():
                print_line(line)


def _to_stderr(word: str, colour: str, message: str) -> None:
    """Escape foreign text in `message`, so that it cannot control the terminal or fake a line."""
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    mark = word if plain or not word else f"\x1b[{colour}m{word}\x1b[0m"
    with _lock, _aside():
        print(*filter(None, (mark, one_line(message))), file=sys.stderr, flush=True)
