"""`--show`: finished pictures drawn in the terminal that stderr is.

By the protocol of kitty or as sixels where the terminal says that it knows them, else as half
blocks of text. textual-image draws, and asks the terminal; it does so on Python's stdout and stdin,
which may be a pipe and a file of prompts here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffgen.cli.console import print_note, undisturbed

if TYPE_CHECKING:
    from PIL import Image

LINES_LEFT = 2  # below a picture, for its path and the prompt of the shell


class Screen:
    """Takes pictures as a sheet does, and draws each at once."""

    def __init__(self) -> None:
        self._works = can_draw()

    def add(self, image: Image.Image, record: Mapping[str, Any]) -> None:
        """Draw a picture as large as the terminal; a terminal that fails is left in peace."""
        del record
        if not self._works:
            return
        try:
            with undisturbed(), _on_terminal():
                _draw(image)
        except Exception as error:
            self._works = False
            print_note(f"--show: cannot draw in this terminal: {error or type(error).__name__}")


def can_draw() -> bool:
    """Whether stderr is a terminal with colours, and ours: a background job must not ask it things."""
    stream = sys.__stderr__
    if stream is None or stream.closed or not stream.isatty():
        return False
    if os.environ.get("TERM") in ("dumb", "unknown") or "utf" not in stream.encoding.lower():
        return False
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, AttributeError):  # not the terminal that controls us; Windows has no groups
        return True


@contextmanager
def _on_terminal() -> Iterator[None]:
    """Let Python's first streams be the terminal at stderr, where textual-image looks for it."""
    before = sys.__stdin__, sys.__stdout__
    stream = sys.__stderr__
    assert stream is not None
    sys.__stdout__ = stream  # type: ignore[misc]
    try:
        if not hasattr(os, "ttyname"):
            yield
            return
        with open(os.ttyname(stream.fileno()), encoding="utf-8") as keys:
            sys.__stdin__ = keys  # type: ignore[misc]
            yield
    finally:
        sys.__stdin__, sys.__stdout__ = before  # type: ignore[misc]


def _draw(image: Image.Image) -> None:
    from rich.console import Console
    from textual_image.renderable import Image as Picture

    # Colours are what was asked for, whatever NO_COLOR says of words.
    console = Console(file=sys.__stdout__, no_color=False)
    drawn = Picture(image, width="auto", height="auto")
    console.print(drawn, end="", height=max(1, console.height - LINES_LEFT))
