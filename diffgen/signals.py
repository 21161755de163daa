"""The signals that ask a program to stop."""

from __future__ import annotations

import signal

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def heard() -> tuple[signal.Signals, ...]:
    """Those that the program was not started to ignore, as it is under nohup."""
    return tuple(number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN)
