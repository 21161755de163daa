"""`--show`: pictures drawn in a real terminal, and nowhere else."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat
from terminals import Seen, environment, in_terminal, screen

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


PREVIEWED = ("generate", "red barn", "--seed", "7", "--steps", "6", "--preview-every", "2")


def test_kitty_keeps_no_preview(tmp_path: Path) -> None:
    (seen,) = in_terminal((*PREVIEWED, "--show"), cwd=tmp_path, answers=KITTY)
    assert seen.code == 0
    placed = re.findall(r"\x1b_Ga=p,i=(\d+)", seen.terminal)
    freed = re.findall(r"\x1b_Ga=d,d=I,i=(\d+)", seen.terminal)
    assert len(placed) == 3  # of steps 2 and 4, and the picture itself, which stays
    assert freed == placed[:2]


def test_iterm_gets_pictures_and_previews_whole(tmp_path: Path) -> None:
    shown = (*PREVIEWED, "--show", "-o", "a.png")
    (seen,) = in_terminal(shown, cwd=tmp_path, TERM_PROGRAM="iTerm.app", columns=80, rows=20)
    assert seen.code == 0
    sent = re.findall(
        r"((?:\r?\n){18})\x1b\[18A\x1b7\x1b\]1337;File=inline=1;size=(\d+);width=36;height=18;"
        r"preserveAspectRatio=1:([^\a]+)\a\x1b8\x1b\[18B\r",
        seen.terminal,
    )
    assert len(sent) == 3  # of steps 2 and 4, and the picture itself
    assert len(re.findall(r"\x1b\[18A\r\x1b\[J", seen.terminal)) == 2  # previews, taken away
    content = base64.b64decode(sent[-1][2])
    assert len(content) == int(sent[-1][1])
    with Image.open(io.BytesIO(content)) as last, Image.open(tmp_path / "a.png") as own:
        assert differs(last.convert("RGB"), own.convert("RGB")) == 0
    assert "\x1b[c" not in seen.terminal  # nothing is asked


def left_on(seen: Seen) -> list[str]:
    """The lines that stay; what the terminal is asked shows nothing."""
    return screen(re.sub(r"\x1b_G[^\x1b]*\x1b\\|\x1b\[16?[ct]|\x1b\[c", "", seen.terminal))


def previews(seen: Seen) -> list[Image.Image]:
    """Each picture that was drawn, before it was taken away."""
    parts = re.split(r"\x1b\[\d+A\r\x1b\[J", seen.terminal)
    return [blocks(seen._replace(terminal=part)) for part in parts if "▀" in part]


def test_a_picture_is_seen_emerging(tmp_path: Path) -> None:
    (seen,) = in_terminal(PREVIEWED, cwd=tmp_path, **TRUE_COLOUR)
    assert seen.code == 0
    early, late = previews(seen)  # of steps 2 and 4
    with Image.open(tmp_path / "red-barn-7.png") as written:
        small = written.convert("RGB").resize(late.size)
    assert differs(late, small) < differs(early, small)
    assert differs(late, small) < 0.6 * differs(
        late.transpose(Image.Transpose.FLIP_TOP_BOTTOM), small
    )
    # Nothing of them is left.
    assert not any("▀" in line for line in left_on(seen))
    assert left_on(seen)[0] == "red-barn-7.png"


def test_previews_change_no_picture(tmp_path: Path) -> None:
    """To the bit, and with everything that is written into the file."""
    plain = tuple(word for word in PREVIEWED if word not in ("--preview-every", "2"))
    twice = ("--hires", "1.5x", "--hires-strength", "0.6", "-n", "a dog", "-c", "2")
    commands = [
        (*command, *more, "-o", f"{name}{i}/", "--batch-size", "2")
        for i, more in enumerate([(), twice])
        for name, command in (("seen", (*PREVIEWED, "--show")), ("plain", plain))
    ]
    for seen in in_terminal(*commands, cwd=tmp_path, **TRUE_COLOUR):
        assert seen.code == 0
    for i, count in enumerate([1, 2]):
        with_previews, without = (
            [path.read_bytes() for path in sorted((tmp_path / f"{name}{i}").glob("*.png"))]
            for name in ("seen", "plain")
        )
        assert len(without) == count
        assert with_previews == without


def test_previews_of_many_pictures_leave_only_lines(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a barn\na blue boat\na cat\n")
    command = ("generate", "--prompts", "p.txt", *PREVIEWED[2:], "-o", "o/")
    (seen,) = in_terminal(command, cwd=tmp_path, **TRUE_COLOUR)
    assert seen.code == 0
    assert len(previews(seen)) == 6
    assert not any("▀" in line for line in left_on(seen))
    paths = [line for line in left_on(seen) if line.endswith(".png")]
    assert paths == ["o/a-barn-7.png", "o/a-blue-boat-7.png", "o/a-cat-7.png"]
    assert any(line.startswith("3 made, 0 failed") for line in left_on(seen))


@pytest.mark.parametrize("changes", [{}, {"TERM": "dumb"}])
def test_previews_are_refused_where_there_is_no_terminal(
    changes: dict[str, str], tmp_path: Path
) -> None:
    if changes:
        (seen,) = in_terminal(PREVIEWED, cwd=tmp_path, **changes)
        code, text = seen.code, seen.terminal
    else:
        command = [sys.executable, "-m", "diffgen", *PREVIEWED]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
        )
        code, text = ran.returncode, ran.stderr
    assert code == 2
    assert "--preview-every draws in the terminal, and stderr is none that shows pictures" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (80, 0), (0, 40), (1, 1), (2, 3)])
def test_terminals_without_a_size_get_the_picture_in_a_file_only(
    columns: int, rows: int, tmp_path: Path
) -> None:
    """As continuous integration and some multiplexers have them."""
    commands = [(*COMMAND, "-o", "a.png"), (*PREVIEWED, "-o", "b.png")]
    shown, previewed = in_terminal(
        *commands, cwd=tmp_path, columns=columns, rows=rows, **TRUE_COLOUR
    )
    for seen, name in ((shown, "a.png"), (previewed, "b.png")):
        assert seen.code == 0
        assert (tmp_path / name).exists()
        assert "Traceback" not in seen.terminal
        if 0 in (columns, rows):
            assert "▀" not in seen.terminal
            assert seen.terminal.count("it does not say how large it is") == 1
