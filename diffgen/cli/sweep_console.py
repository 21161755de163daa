"""What a sweep shows in the terminal: its progress on stderr, its table on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from diffgen.cli.console import print_line, reported_pipe

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

LINE_EVERY = 10.0  # seconds
PIPE_WIDTH = 160  # characters, where no terminal says how wide it is


def print_table(table: Table) -> None:
    """A table on stdout. Raises OutputError if nobody reads any more."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    with reported_pipe():
        Console(width=width).print(table)


class SweepProgress(Protocol):
    """Hears what is being done, how many network evaluations are to come, and of each one."""

    def begin(self, label: str) -> None: ...

    def expect(self, calls: int) -> None: ...

    def called(self) -> None: ...


class _Silent:
    def begin(self, label: str) -> None:
        pass

    def expect(self, calls: int) -> None:
        pass

    def called(self) -> None:
        pass


class _Lines:
    def __init__(self) -> None:
        self._label, self._done, self._total = "", 0, 0
        self._start = self._latest = time.monotonic()

    def begin(self, label: str) -> None:
        self._label = label

    def expect(self, calls: int) -> None:
        self._total = calls
        self._start = self._latest = time.monotonic()
        print_line(f"{calls} network evaluations to come")

    def called(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._latest >= LINE_EVERY:
            self._latest = now
            left = (now - self._start) / self._done * max(self._total - self._done, 0)
            print_line(f"{self._label}: {self._done} of {self._total}, {left:.0f} s left")


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("loading", total=None)

    def begin(self, label: str) -> None:
        self._progress.update(self._task, description=label)

    def expect(self, calls: int) -> None:
        self._progress.update(self._task, total=calls)

    def called(self) -> None:
        self._progress.advance(self._task)


@contextmanager
def sweep_progress(*, quiet: bool) -> Iterator[SweepProgress]:
    """Somebody to tell how far a sweep is."""
    if quiet:
        yield _Silent()
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)
