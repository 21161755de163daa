"""Progress on stderr: silent, plain lines, or a bar on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffgen.cli.console import beside, print_line
from diffgen.errors import one_line
from diffgen.types import ProgressKind

if TYPE_CHECKING:
    from rich.progress import Progress

NARROW = 70  # columns of a terminal; below, the bar is short and shows no speed


class Display:
    """Plain lines. `update` shows nothing, so callers print a line now and then."""

    live = False

    def say(self, line: str) -> None:
        """Print a permanent line."""
        print_line(line)

    def update(self, label: str, done: int, total: int | None) -> None:
        """Show the current work and its progress; `total` is None if unknown."""


class Silent(Display):
    """For --quiet."""

    def say(self, line: str) -> None:
        pass


class Bar(Display):
    """A bar in the terminal's last line, hidden while any other line is printed."""

    live = True

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("loading", total=None)
        self._label = ""

    def update(self, label: str, done: int, total: int | None) -> None:
        begins, self._label = label != self._label, label
        self._progress.update(
            self._task,
            description=one_line(label, at_most=60),
            completed=done,
            total=total and max(total, done),  # the total may have been an underestimate
            refresh=begins,  # so that short work is visible too
        )

    @contextmanager
    def hidden(self) -> Iterator[None]:
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


@contextmanager
def progress(
    *, quiet: bool, in_bytes: bool = False, kind: ProgressKind = "auto"
) -> Iterator[Display]:
    """A display for work counted in pieces or bytes; "auto" is a bar on a terminal, else lines."""
    no_terminal = not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown")
    if quiet or kind in ("none", "json"):
        yield Silent()
    elif kind == "plain" or (kind == "auto" and no_terminal):
        yield Display()
    else:
        with _rich_bar(in_bytes=in_bytes) as running:
            bar = Bar(running)
            with beside(bar.hidden):
                yield bar


def _rich_bar(*, in_bytes: bool) -> Progress:
    """A bar that fits into one line of this terminal, without rich's redirection.

    Redirection would send results to stderr and break long lines.
    """
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Count(progress.MofNCompleteColumn):
        def render(self, task: progress.Task) -> Text:
            return Text() if task.total is None else super().render(task)

    class Speed(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            return f"{task.speed:.1f} it/s" if task.speed else ""

    console = Console(stderr=True)
    narrow = console.width < NARROW
    columns = [
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=10 if narrow else 30),
        progress.DownloadColumn() if in_bytes else Count(),
        *([] if narrow else [progress.TransferSpeedColumn() if in_bytes else Speed()]),
        progress.TimeRemainingColumn(compact=True),
    ]
    return progress.Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
