"""Being asked to stop: by Ctrl-C, by a service manager, or by a terminal that closes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

from diffgen.errors import DiffgenError
from diffgen.signals import heard


class Asked(KeyboardInterrupt):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stopped(DiffgenError):
    """What had been done when a signal came, and how to go on."""

    def __init__(self, asked: KeyboardInterrupt, message: str) -> None:
        number = getattr(asked, "number", signal.SIGINT)
        super().__init__(f"{reason(number)}{message}")
        self.exit_code = 128 + number


def reason(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Raise Asked at the first signal; gives a list that holds its number then.

    The second one ends the process at once. Signals that the program was started to ignore, as
    under nohup, stay ignored.
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
    """Let the first signal set `stopping` and the second raise Asked; gives a list of what came."""
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
    """Have every signal handled so, and as before behind that."""
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
