"""`--show` and `--preview-every`: draw pictures in the terminal on stderr.

Uses iTerm2's protocol in terminals that are known for it, kitty's or sixels if the terminal reports
support, else half blocks of text.
textual-image draws, and queries the terminal; it uses Python's stdout and stdin, which may be a
pipe and a file of prompts here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffgen.cli import inline
from diffgen.cli.console import beside, erase_lines, free_picture, print_note, undisturbed
from diffgen.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from diffgen.engine.engine import Engine
    from diffgen.engine.previewing import Previewer
    from diffgen.types import StepInfo

LINES_LEFT = 2  # lines below a picture, for its path and the shell's prompt
ABREAST = 4  # previews of a batch


class Screen:
    """Draws each written picture at once."""

    def __init__(self, option: str = "--show") -> None:
        """`option` is the option that asked for it, for messages."""
        self._option = option
        self.works = can_draw()
        self.lines = 0  # of the last picture
        self._kept: int | None = None  # the last picture's number, if the terminal keeps it

    def add(self, image: Image.Image, record: Mapping[str, Any]) -> None:
        """Draw a picture as large as the terminal; after a failure, draw no more."""
        del record
        self.draw(lambda: image)

    def draw(self, picture: Callable[[], Image.Image]) -> None:
        """Produce a picture and draw it, if the terminal works."""
        if not self.works:
            return
        try:
            image = picture()
            with undisturbed(), _on_terminal():
                self.lines, self._kept = _draw(image)
        except Exception as error:
            self.works = False
            words = str(error) or type(error).__name__
            print_note(f"{self._option}: cannot draw in this terminal: {words}")

    def erase(self) -> None:
        """Take the last picture off the terminal, and out of its memory."""
        if self.lines:
            erase_lines(self.lines)
        if self._kept is not None:
            free_picture(self._kept)
        self.lines, self._kept = 0, None


class Previews:
    """Previews pictures in progress, above the progress bar.

    Any other output replaces the last preview.
    """

    def __init__(self, every: int) -> None:
        """Raises UsageError without a terminal to draw in."""
        self._screen, self._every = Screen("--preview-every"), every
        if not self._screen.works:
            raise UsageError(
                "--preview-every draws in the terminal, and stderr is none that shows pictures; "
                "leave it out"
            )
        self._previewer: tuple[Engine, Previewer] | None = None

    @contextmanager
    def shown(self) -> Iterator[Previews]:
        """Show previews inside the block, and erase them after it."""
        with beside(self._erased):
            yield self
            with undisturbed():
                pass

    def on_step(self, info: StepInfo, engine: Engine) -> None:
        """Preview a step, except the last one, which is the picture itself."""
        if (info.index + 1) % self._every == 0 and info.index + 1 != info.total:
            self._screen.draw(lambda: _row(self._of(engine).images(info.denoised)))

    def _of(self, engine: Engine) -> Previewer:
        from diffgen.engine.previewing import Previewer

        if self._previewer is None or self._previewer[0] is not engine:
            self._previewer = engine, Previewer(engine)
        return self._previewer[1]

    @contextmanager
    def _erased(self) -> Iterator[None]:
        self._screen.erase()
        yield


def _row(images: Sequence[Image.Image]) -> Image.Image:
    """The first pictures of a batch, side by side."""
    from PIL import Image

    images = images[:ABREAST]
    row = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for i, image in enumerate(images):
        row.paste(image.convert("RGB"), (i * image.width, 0))
    return row


def can_draw() -> bool:
    """Whether stderr is a colour terminal in the foreground: a background job must not query it."""
    stream = sys.__stderr__
    if stream is None or stream.closed or not stream.isatty():
        return False
    if os.environ.get("TERM") in ("dumb", "unknown") or "utf" not in stream.encoding.lower():
        return False
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, AttributeError):  # not the controlling terminal; Windows has no process groups
        return True


@contextmanager
def _on_terminal() -> Iterator[None]:
    """Set Python's original streams to the terminal on stderr, where textual-image looks."""
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


def _draw(image: Image.Image) -> tuple[int, int | None]:
    """Draw a picture at the cursor, which moves below it; returns the lines in between, and the
    number under which a terminal with kitty's protocol keeps it.
    """
    stream = sys.__stdout__
    assert stream is not None
    if 0 in os.get_terminal_size(stream.fileno()):
        raise OSError("it does not say how large it is")
    if inline.is_known():
        columns, rows = os.get_terminal_size(stream.fileno())
        cell = inline.cell_of(stream.fileno())
        text, lines = inline.drawn(image, columns, max(1, rows - LINES_LEFT), cell)
        stream.write(text)
        stream.flush()
        return lines, None
    from rich.console import Console
    from textual_image.renderable import Image as Picture

    # Pictures need colours, even if NO_COLOR asks for plain words.
    console = Console(file=stream, no_color=False)
    drawn = Picture(image, width="auto", height="auto")
    with console.capture() as captured:
        console.print(drawn, end="", height=max(1, console.height - LINES_LEFT))
    stream.write(captured.get())
    stream.flush()
    return captured.get().count("\n"), getattr(drawn, "terminal_image_id", None)
