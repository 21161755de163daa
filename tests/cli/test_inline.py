"""diffgen.cli.inline: which terminals get pictures in iTerm2's protocol, and how large."""

import pytest
from PIL import Image

from diffgen.cli import inline


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM_PROGRAM": "WezTerm"}, True),
        ({"LC_TERMINAL": "iTerm2"}, True),  # as ssh hands it on
        ({"TERM_PROGRAM": "Apple_Terminal"}, False),
        ({"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2"}, False),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, False),
    ],
)
def test_who_knows_iterms_protocol(changes: dict[str, str], known: bool) -> None:
    assert inline.is_known({"TERM": "xterm-256color"} | changes) == known


@pytest.mark.parametrize(
    ("size", "cells"), [((64, 64), (40, 20)), ((640, 64), (80, 4)), ((64, 640), (4, 20))]
)
def test_pictures_fill_the_terminal_in_their_shape(
    size: tuple[int, int], cells: tuple[int, int]
) -> None:
    text, lines = inline.drawn(Image.new("RGB", size), 80, 20)
    assert f";width={cells[0]};height={cells[1]};" in text
    assert lines == cells[1]
