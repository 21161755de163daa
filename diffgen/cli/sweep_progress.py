"""The progress of a sweep."""

from __future__ import annotations

import time

from diffgen.cli.progress import Display

LINE_EVERY = 10.0  # seconds


class SweepProgress:
    """Displays the current work and counts network evaluations."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._label, self._done, self._total = "loading", 0, 0
        self._start = self._latest = time.monotonic()

    def begin(self, label: str) -> None:
        self._label = label
        self._update()

    def expect(self, calls: int) -> None:
        self._total = calls
        self._start = self._latest = time.monotonic()
        if not self._display.live:
            self._display.say(f"{calls} network evaluations to come")

    def called(self) -> None:
        self._done += 1
        self._update()
        now = time.monotonic()
        if not self._display.live and now - self._latest >= LINE_EVERY:
            self._latest = now
            left = (now - self._start) / self._done * max(self._total - self._done, 0)
            line = f"{self._label}: {self._done} of {self._total}, {left:.0f} s left"
            self._display.say(line)

    def _update(self) -> None:
        self._display.update(self._label, self._done, self._total or None)
