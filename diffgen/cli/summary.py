"""`--summary FILE`: what a run came to, as JSON for programs, however it ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from diffgen.cli.console import lost_results, print_error
from diffgen.cli.mistakes import known_trouble
from diffgen.cli.signals import Asked, reason
from diffgen.cli.streams import GuardedStream
from diffgen.errors import DiffgenError, OutputError, reason_of
from diffgen.files import expanded, replaced

if TYPE_CHECKING:
    from diffgen.batch.run import Tally


class Summary:
    """The summary of one run in a file; None writes nothing."""

    def __init__(self, file: str | None) -> None:
        self._path = expanded(file) if file else None
        self._tally: Tally | None = None

    def begin(self, tally: Tally) -> None:
        """Note the counts of a run that begins, and remove an older summary: a killed run has none."""
        self._tally = tally
        if self._path:
            with _told(self._path):
                self._path.unlink(missing_ok=True)

    def write(self, code: int, error: str | None) -> None:
        """Write the counts so far, with the command's exit code and error. Raises OutputError."""
        if self._path:
            with _told(self._path), replaced(self._path) as part:
                part.write_text(json.dumps(self._as_json(code, error), indent=2) + "\n", "utf-8")

    def _as_json(self, code: int, error: str | None) -> dict[str, Any]:
        from diffgen.batch.run import Tally

        tally = self._tally or Tally()
        return {
            "made": tally.made,
            "failed": tally.failed,
            "skipped": tally.skipped,
            "elsewhere": tally.elsewhere,
            "seconds": round(time.monotonic() - tally.begun, 3),
            "exit_code": code or tally.exit_code,
            "error": error,
            "failures": tally.failures,
        }


@contextmanager
def summarised(file: str | None) -> Iterator[Summary]:
    """Write the summary of the run in this block at its end, by an error or a signal too."""
    summary = Summary(file)
    try:
        yield summary
    except typer.Exit:
        raise
    except BaseException as error:
        try:
            summary.write(*_ending(error))
        except OutputError as other:
            print_error(str(other))
        raise
    lost = lost_results(sys.stdout) if isinstance(sys.stdout, GuardedStream) else ""
    summary.write(1 if lost else 0, lost or None)


def _ending(error: BaseException) -> tuple[int, str]:
    """The exit code and the line of an error."""
    if isinstance(error, Asked):
        return 128 + error.number, reason(error.number)
    if isinstance(error, DiffgenError):
        return error.exit_code, str(error)
    if not isinstance(error, Exception):
        return 1, type(error).__name__
    line, code = known_trouble(error) or (reason_of(error), 1)
    return code, line


@contextmanager
def _told(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
