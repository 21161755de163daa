"""The estimate at each step of one run: a strip, and two animations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from diffgen.bench.show import tiles
from diffgen.bench.show.views import write_file
from diffgen.errors import UsageError

NOTE = (
    "Step {middle} of {total} is not a {middle}-step run: "
    "that takes longer strides, and has come to the end by then."
)
GAP, CAPTION, MARGIN = 10, 40, 20
PER_ROW = 10
SECONDS = 4.0  # of one pass, about
SHORTEST, LONGEST, PAUSE = 60, 400, 1600  # milliseconds
BAR = 3


def write_trajectory(
    frames: Sequence[Image.Image], sigmas: Sequence[float], folder: Path, *, name: str
) -> list[Path]:
    """Draw the denoised estimate of every step; `sigmas` are the noise levels at each step's start.

    Writes NAME-strip.png, and the animations NAME-animated.png and NAME-animated.gif. Raises
    UsageError for a run without steps and OutputError for a file that cannot be written.
    """
    if not frames:
        raise UsageError("a trajectory needs at least one step")
    labels = [
        (f"step {number} of {len(frames)}", f"sigma {sigma:.3g}")
        for number, (_, sigma) in enumerate(zip(frames, sigmas, strict=True), start=1)
    ]
    strip = _strip(frames, labels)
    film = [_still(frame, labels, i) for i, frame in enumerate(frames)]
    step = round(min(LONGEST, max(SHORTEST, 1000 * SECONDS / len(frames))))
    durations = [step] * (len(film) - 1) + [PAUSE]
    animate = partial(
        film[0].save, save_all=True, append_images=film[1:], duration=durations, loop=0
    )
    return [
        write_file(folder / f"{name}-strip.png", strip.save),
        write_file(folder / f"{name}-animated.png", animate),
        write_file(folder / f"{name}-animated.gif", animate),
    ]


def _strip(frames: Sequence[Image.Image], labels: Sequence[tuple[str, str]]) -> Image.Image:
    width, height = tiles.tile_size(*frames[0].size)
    columns = min(PER_ROW, len(frames))
    rows = -(-len(frames) // columns)
    pitch = (width + GAP, height + CAPTION + GAP)
    note = _note(len(frames))
    size = (
        max(columns * pitch[0] - GAP, round(tiles.font(13).getlength(note))) + 2 * MARGIN,
        rows * pitch[1] + 2 * MARGIN + 16,
    )
    strip = Image.new("RGB", size, tiles.PAPER)
    draw = ImageDraw.Draw(strip)
    for i, (frame, (step, sigma)) in enumerate(zip(frames, labels, strict=True)):
        x, y = MARGIN + i % columns * pitch[0], MARGIN + i // columns * pitch[1]
        strip.paste(tiles.fitted(frame, (width, height)), (x, y))
        tiles.write_text(draw, (x, y + height + 5), step, width=width)
        tiles.write_text(draw, (x, y + height + 21), sigma, fill=tiles.SOFT, width=width)
    tiles.write_text(draw, (MARGIN, size[1] - MARGIN - 14), note, fill=tiles.SOFT)
    return strip


def _note(total: int) -> str:
    middle = max(1, total // 2)
    return NOTE.format(middle=middle, total=total)


def _still(frame: Image.Image, labels: Sequence[tuple[str, str]], index: int) -> Image.Image:
    """One frame of the animation: the picture, a progress bar and a label."""
    width, height = tiles.tile_size(*frame.size)
    if max(frame.size) < tiles.LARGEST:
        factor = max(1, tiles.LARGEST // max(frame.size))
        width, height = frame.width * factor, frame.height * factor
    still = Image.new("RGB", (width, height + BAR + 26), tiles.PAPER)
    still.paste(tiles.fitted(frame, (width, height)), (0, 0))
    draw = ImageDraw.Draw(still)
    done = width * (index + 1) // len(labels)
    draw.rectangle((0, height, done - 1, height + BAR - 1), fill=tiles.ACCENT)
    text = ", ".join(labels[index])
    tiles.write_text(draw, (8, height + BAR + 5), text, width=width - 16)
    return still
