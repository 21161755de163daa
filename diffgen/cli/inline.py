"""Pictures in iTerm2's inline protocol, which WezTerm knows too: whole and in all their colours.

Both also draw sixels, of 256 colours. https://iterm2.com/documentation-images.html
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

PROGRAMS = ("iTerm.app", "WezTerm")
BETWEEN = ("tmux", "screen")  # they keep such sequences to themselves
CELL = 2.0  # height of a character by its width, where the terminal does not say


def is_known(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal says that it is one of these, through ssh too."""
    if environment.get("TERM", "").startswith(BETWEEN):
        return False
    here = environment.get("TERM_PROGRAM") in PROGRAMS
    return here or environment.get("LC_TERMINAL") == "iTerm2"


def drawn(image: Image.Image, columns: int, rows: int, cell: float = CELL) -> tuple[str, int]:
    """The text that draws a picture as large as fits, and its lines; the cursor ends below it.

    Terminals differ in where they leave the cursor, so that room is made first.
    """
    height = max(1, min(rows, round(columns * image.height / image.width / cell)))
    width = max(1, min(columns, round(height * cell * image.width / image.height)))
    content = BytesIO()
    image.save(content, "PNG", compress_level=1)
    size = f"size={content.tell()};width={width};height={height};preserveAspectRatio=1"
    data = b64encode(content.getvalue()).decode("ascii")
    room = "\n" * height + f"\x1b[{height}A"
    return f"{room}\x1b7\x1b]1337;File=inline=1;{size}:{data}\a\x1b8\x1b[{height}B\r", height


def cell_of(descriptor: int) -> float:
    """The height of a character by its width in a terminal that says its size in pixels."""
    try:
        import fcntl
        import struct
        import termios

        answer = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError):
        return CELL
    rows, columns, across, down = struct.unpack("HHHH", answer)
    return (down / rows) / (across / columns) if all((rows, columns, across, down)) else CELL
