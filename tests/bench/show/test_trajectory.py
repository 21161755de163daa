import pytest
from PIL import Image, ImageSequence

from diffgen.bench.show import tiles
from diffgen.bench.show.trajectory import GAP, MARGIN, PAUSE, write_trajectory
from diffgen.errors import OutputError, UsageError

SIGMAS = [14.6, 3.2, 0.7, 0.03]
GREYS = [40, 90, 140, 190]


@pytest.fixture
def frames():
    return [Image.new("RGB", (32, 32), (grey, 0, 0)) for grey in GREYS]


def test_three_files_named_after_the_run(tmp_path, frames):
    paths = write_trajectory(frames, SIGMAS, tmp_path, name="euler-karras-4")
    names = [
        "euler-karras-4-strip.png",
        "euler-karras-4-animated.png",
        "euler-karras-4-animated.gif",
    ]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_the_strip_shows_all_steps_in_order(tmp_path, frames):
    strip, *_ = write_trajectory(frames, SIGMAS, tmp_path, name="run")
    with Image.open(strip) as picture:
        pitch = 128 + GAP
        seen = [picture.getpixel((MARGIN + i * pitch + 64, MARGIN + 64))[0] for i in range(4)]
    assert seen == GREYS


def test_the_strip_says_what_a_step_is_not(tmp_path, frames, monkeypatch):
    written = []
    write_text = tiles.write_text

    def listen(draw, at, text, **options):
        written.append(text)
        write_text(draw, at, text, **options)

    monkeypatch.setattr(tiles, "write_text", listen)
    write_trajectory(frames * 10, SIGMAS * 10, tmp_path, name="run")
    assert any(text.startswith("Step 20 of 40 is not a 20-step run") for text in written)
    assert {"step 1 of 40", "step 40 of 40", "sigma 14.6", "sigma 0.03"} <= set(written)


@pytest.mark.parametrize("kind", [1, 2])
def test_the_animations_show_all_steps_and_rest_at_the_end(tmp_path, frames, kind):
    path = write_trajectory(frames, SIGMAS, tmp_path, name="run")[kind]
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        pages = [
            (page.convert("RGB").getpixel((128, 128))[0], page.info["duration"])
            for page in ImageSequence.Iterator(film)
        ]
    assert [grey for grey, _ in pages] == pytest.approx(GREYS, abs=4)  # a GIF has 256 colours
    assert [duration for _, duration in pages] == [400, 400, 400, PAUSE]


def test_large_and_grey_frames(tmp_path):
    frames = [Image.new("L", (600, 300), grey) for grey in GREYS]
    strip, film, _ = write_trajectory(frames, SIGMAS, tmp_path, name="run")
    with Image.open(strip) as picture:
        assert picture.width == 4 * (256 + GAP) - GAP + 2 * MARGIN
    with Image.open(film) as picture:
        assert picture.width == 256


def test_a_single_step(tmp_path, frames):
    paths = write_trajectory(frames[:1], SIGMAS[:1], tmp_path, name="run")
    assert all(path.is_file() for path in paths)


def test_no_steps_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one step"):
        write_trajectory([], [], tmp_path, name="run")


def test_a_missing_folder_is_one_clear_error(tmp_path, frames):
    with pytest.raises(OutputError, match="cannot write"):
        write_trajectory(frames, SIGMAS, tmp_path / "missing", name="run")
