"""Prompts from the command line and from files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffgen.batch.files import BadFile, Entry, Problem, check_all, name_of, read_file
from diffgen.batch.requests import from_record, is_record, read_settings
from diffgen.cli.console import print_line, print_note
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UnreadSyntax, UsageError, some


def read_prompts(prompts: Sequence[str] | None, file: str | None) -> list[str]:
    """Prompts from the command line, then those of the file, for one set of settings.

    Raises UsageError for no prompts or an unreadable file, and BadFile for faults in its entries,
    such as settings of their own.
    """
    if "-" in (prompts or ()):
        raise UsageError('"-" is no prompt; --prompts - reads prompts from stdin')
    found = [*(prompts or [])]
    if file:
        tell_terminal(file)
        check_all((_take(entry, found) for entry in read_file(file)), name_of(file))
    if not found:
        nothing = 'no prompt given: try "red barn at sunset"'
        raise UsageError(f"{name_of(file)} has no prompts" if file else nothing)
    return found


def _take(entry: Entry, found: list[str]) -> Problem | None:
    """Add the prompts of an entry; returns its fault, if any."""
    if isinstance(entry, Problem):
        return entry
    try:
        given = entry.settings
        prompts, others = read_settings(from_record(given) if is_record(given) else given)
        if others:
            names = some([name.replace("_", " ") for name in others])
            raise UsageError(
                f"settings are the same for all prompts here: {names}; give options to the command"
            )
        GenerateRequest(prompts=prompts)
    except UsageError as error:
        return Problem(entry.line, str(error), error)
    found += prompts
    return None


@contextmanager
def listed_problems() -> Iterator[None]:
    """Print the faults in a file's entries, a line each, before the error."""
    try:
        yield
    except BadFile as bad:
        for line in bad.lines:
            print_line(line)
        raise


def tell_terminal(file: str | None) -> None:
    """Say that prompts are read from the terminal, if it is one."""
    if file == "-" and sys.stdin is not None and sys.stdin.isatty():
        print_note("reading prompts from the terminal, one a line; Ctrl-D ends them")


def tell_syntax(pieces: Sequence[str], *, strict: bool = False) -> None:
    """Warn about syntax in prompts that is taken as plain words.

    `pieces` are from `unread_syntax`. Raises UnreadSyntax instead if `strict`.
    """
    if pieces and strict:
        raise UnreadSyntax(pieces)
    if pieces:
        print_note(f"drawn as plain words (--strict refuses it): {'; '.join(pieces)}")
