"""Requests to stop: Ctrl-C, a service manager, or a closing terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from diffgen.errors import DiffgenError
from diffgen.signals import heard


class Asked(KeyboardInterrupt):
    """A signal arrived."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stopped(DiffgenError):
    """The state of the run when a signal came, and how to resume."""

    def __init__(self, asked: KeyboardInterrupt, message: str) -> None:
        number = getattr(asked, "number", signal.SIGINT)
        super().__init__(f"{reason(number)}{message}")
        self.exit_code = 128 + number


def reason(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Raise Asked at the first signal; yields a list that then holds its number.

    The second one ends the process at once. Signals ignored from the start, as under nohup, stay
    ignored.
    """
    came: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        _let_the_next_kill()
        raise Asked(number)

    with _handled(ask):
        yield came


@contextmanager
def finishing_first(stopping: Event) -> Iterator[list[int]]:
    """The first signal sets `stopping`, the second raises Asked; yields a list of signals."""
    came: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if stopping.is_set():
            _let_the_next_kill()
            raise Asked(number)
        stopping.set()

    with _handled(ask):
        yield came


@contextmanager
def _handled(ask: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler for all signals, and restore the previous ones afterwards."""
    before = {number: signal.getsignal(number) for number in heard()}
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _let_the_next_kill() -> None:
    for number in heard():
        signal.signal(number, signal.SIG_DFL)
