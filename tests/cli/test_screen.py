"""`--show`: pictures drawn in a real terminal, and nowhere else."""

import base64
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat
from terminals import Seen, in_terminal

BLOCK = re.compile(r"(?:\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m)▀")
KITTY_QUERY, SIXEL_QUERY, CELL_QUERY = b"AAAA\x1b\\", b"\x1b[c", b"\x1b[16t"
CELLS = {CELL_QUERY: b"\x1b[6;20;10t"}
SIXEL = CELLS | {SIXEL_QUERY: b"\x1b[?62;4;6c"}
KITTY = CELLS | {SIXEL_QUERY: b"\x1b[?62c", KITTY_QUERY: b"\x1b_Gi=1;OK\x1b\\"}
COMMAND = ("generate", "red barn", "--seed", "7", "--steps", "2", "--show", "--overwrite")
TRUE_COLOUR = {"COLORTERM": "truecolor"}


def differs(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference, in levels of 255."""
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    means = ImageStat.Stat(difference).mean
    return sum(means) / len(means)


def blocks(seen: Seen) -> Image.Image:
    """What the half blocks show: two pixels a character, one above the other."""
    rows = [BLOCK.findall(line) for line in seen.terminal.split("\n") if BLOCK.search(line)]
    picture = Image.new("RGB", (len(rows[0]), 2 * len(rows)))
    for y, row in enumerate(rows):
        assert len(row) == picture.width
        for x, cell in enumerate(row):
            levels = tuple(map(int, cell))
            picture.putpixel((x, 2 * y), levels[:3])
            picture.putpixel((x, 2 * y + 1), levels[3:])
    return picture


@pytest.mark.parametrize("columns", [50, 80])
def test_half_blocks_show_the_picture_that_was_written(columns: int, tmp_path: Path) -> None:
    (seen,) = in_terminal(COMMAND, cwd=tmp_path, columns=columns, **TRUE_COLOUR)
    assert seen.code == 0
    shown = blocks(seen)
    assert shown.width <= columns
    assert shown.height <= 2 * 38
    with Image.open(tmp_path / "red-barn-7.png") as written:
        small = written.convert("RGB").resize(shown.size)
        turned = small.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    assert differs(shown, small) < 8  # resized by another filter
    assert differs(shown, turned) > 16
    assert "red-barn-7.png" in seen.terminal


def test_a_pipe_at_stdout_gets_the_path_and_the_terminal_the_picture(tmp_path: Path) -> None:
    (seen,) = in_terminal(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, **TRUE_COLOUR)
    assert seen.out == "red-barn-7.png\n"
    assert blocks(seen).width > 10


def test_prompts_may_come_through_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("red barn\nblue car\n")
    command = ("generate", "--prompts", "-", *COMMAND[2:], "-o", "out/")
    with (tmp_path / "prompts").open("rb") as prompts:
        (seen,) = in_terminal(command, cwd=tmp_path, stdin=prompts, **TRUE_COLOUR)
    assert seen.code == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert blocks(seen).width > 10


def test_sixels_where_the_terminal_knows_them(tmp_path: Path) -> None:
    for stdout in (None, subprocess.PIPE):
        (seen,) = in_terminal(COMMAND, cwd=tmp_path, stdout=stdout, answers=SIXEL)
        assert seen.code == 0
        assert re.search(r"\x1bP[\d;]*q", seen.terminal)
        assert "▀" not in seen.terminal


def test_kitty_gets_the_picture_itself(tmp_path: Path) -> None:
    (seen,) = in_terminal(COMMAND, cwd=tmp_path, answers=KITTY)
    assert seen.code == 0
    sent = re.findall(r"\x1b_G[^;\x1b]*f=100[^;]*;([^\x1b]+)\x1b\\", seen.terminal)
    content = base64.b64decode("".join(sent))
    (tmp_path / "sent.png").write_bytes(content)
    with Image.open(tmp_path / "sent.png") as shown, Image.open(tmp_path / "red-barn-7.png") as own:
        assert differs(shown, own.convert("RGB").resize(shown.size)) < 8


@pytest.mark.parametrize("changes", [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}])
def test_terminals_that_can_show_no_picture_get_none(
    changes: dict[str, str], tmp_path: Path
) -> None:
    (seen,) = in_terminal(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, **changes)
    assert (seen.code, seen.out) == (0, "red-barn-7.png\n")
    assert "▀" not in seen.terminal
    assert "2580" not in seen.terminal
    assert "\x1b[c" not in seen.terminal
