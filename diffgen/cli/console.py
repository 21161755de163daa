"""The only module that prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from diffgen.errors import OutputError
from diffgen.types import StepInfo

if TYPE_CHECKING:
    from rich.progress import Progress


def print_error(message: str) -> None:
    """One line on stderr."""
    _to_stderr(_coloured("error:", "31"), message)


def print_note(message: str) -> None:
    """One line on stderr that is not an error."""
    _to_stderr(_coloured("note:", "33"), message)


def print_line(line: str) -> None:
    """One plain line on stderr."""
    _to_stderr(line)


def print_result(line: str) -> None:
    """One line of results on stdout, at once, so that a reader need not wait for the end.

    Raises OutputError if nobody reads any more.
    """
    with reported_pipe():
        print(line, flush=True)


@contextmanager
def reported_pipe() -> Iterator[None]:
    """Turn a failing stdout into OutputError, and keep the interpreter's last flush quiet."""
    try:
        yield
    except OSError as error:
        # What is still buffered would raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gone = isinstance(error, BrokenPipeError)
        reason = "its reader has gone away" if gone else str(error.strerror)
        raise OutputError(f"cannot write to stdout: {reason}; stopped") from error


@contextmanager
def logged_notes(verbose: bool) -> Iterator[None]:
    """Show what the library logs while a command runs: warnings, and with `verbose` the rest."""
    handler = _NoteHandler()
    logger = logging.getLogger("diffgen")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


class Reporter(Protocol):
    """Somebody who wants to hear how far the pictures are."""

    def start(self, label: str) -> None: ...

    def on_step(self, info: StepInfo) -> None: ...


class _Silent:
    def start(self, label: str) -> None:
        pass

    def on_step(self, info: StepInfo) -> None:
        pass


class _Bar:
    """A rich progress bar over the steps of all batches."""

    def __init__(self, progress: Progress, batches: int) -> None:
        self._progress, self._batches = progress, batches
        self._begun = 0
        self._task = progress.add_task("loading", total=None)

    def start(self, label: str) -> None:
        self._progress.update(self._task, description=label)

    def on_step(self, info: StepInfo) -> None:
        if info.index == 0:
            self._begun += 1
        if not info.total:  # an adaptive sampler: nobody knows how many steps are left
            self._progress.update(self._task, advance=1)
            return
        done = (self._begun - 1) * info.total + info.index + 1
        total = self._batches * info.total
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar(batches: int, *, quiet: bool) -> Iterator[Reporter]:
    """A bar with step, speed and time left if stderr is a terminal; nothing otherwise."""
    if quiet or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich import progress
    from rich.console import Console

    class Speed(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            return f"{task.speed:.1f} it/s" if task.speed else ""

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Speed(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, batches)


def _to_stderr(*parts: str) -> None:
    print(*parts, file=sys.stderr, flush=True)


def _coloured(text: str, code: str) -> str:
    plain = "NO_COLOR" in os.environ or not sys.stderr.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
