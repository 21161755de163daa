"""Reading pictures to begin with: every kind of file, and one clear line for what is none."""

import io
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from diffgen.engine import pictures
from diffgen.engine.edits import Edit
from diffgen.engine.model import Model
from diffgen.engine.pictures import Source, pictures_in
from diffgen.errors import DiffgenError, PictureError, UsageError
from diffgen.settings.editing import Editing


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("image", "suffix", "mode", "colour"),
    [
        (Image.new("RGB", (8, 6), (10, 20, 30)), "png", "RGB", (10, 20, 30)),
        (Image.new("I;16", (8, 6), 128 * 256), "png", "RGB", (128, 128, 128)),
        (Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "tif", "RGB", (255, 0, 0)),
        (Image.new("L", (8, 6), 77), "png", "RGB", (77, 77, 77)),
        (Image.new("1", (8, 6), 1), "png", "RGB", (255, 255, 255)),
        (Image.new("LA", (8, 6), (9, 4)), "png", "RGBA", (9, 9, 9, 4)),
        (Image.new("RGBA", (8, 6), (1, 2, 3, 4)), "png", "RGBA", (1, 2, 3, 4)),
        (Image.new("RGB", (8, 6), "red").convert("P"), "gif", "RGB", (255, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_kind_of_pixel(
    tmp_path: Path, image: Image.Image, suffix: str, mode: str, colour: tuple[int, ...]
) -> None:
    found = Source.read(saved(image, tmp_path / f"a.{suffix}")).image
    assert (found.mode, found.size) == (mode, (8, 6))
    assert found.getpixel((3, 3)) == colour


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_camera_held_sideways(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (32, 16), "blue")
    image.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = Source.read(saved(image, tmp_path / f"a.{suffix}", exif=exif)).image
    assert found.size == (16, 32)
    red, _, blue = found.getpixel((8, 4))
    assert red > 200 > 50 > blue


def test_profiles_that_change_nothing(tmp_path: Path) -> None:
    """The profile of sRGB itself changes no number, and a damaged one counts as none."""
    image = Image.new("RGB", (8, 8), (200, 50, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = Source.read(saved(image, tmp_path / "a.png", icc_profile=srgb)).image
    assert same.getpixel((0, 0)) == (200, 50, 50)
    damaged = Source.read(saved(image, tmp_path / "b.png", icc_profile=b"nonsense")).image
    assert damaged.getpixel((0, 0)) == (200, 50, 50)


def test_a_picture_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    source = Source.read(path)
    assert source.record == {"path": str(path), "sha256": source.sha256}
    assert len(source.sha256) == 64


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.getvalue())))
    pictures._stdin.cache_clear()
    assert Source.read("-").sha256 == Source.read("-").sha256  # the pipe holds it but once
    assert Source.read("-").image.getpixel((0, 0)) == (255, 0, 0)


def bomb(path: Path) -> Path:
    """A PNG of a few bytes that says it has 60,000 x 60,000 pixels."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (60_000).to_bytes(4) * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("name", "data", "kind", "says"),
    [
        ("gone.png", None, UsageError, "cannot read the picture .*gone.png: No such file"),
        ("a.png", b"", PictureError, "a.png is no picture, or a damaged one"),
        ("a.jpg", b"<!DOCTYPE html>", PictureError, "a.jpg is text, not a picture"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", PictureError, "a.eps is text, not a picture"),
        ("bomb.png", "bomb", PictureError, "bomb.png has more than 500 megapixels"),
        ("cut.png", "cut", PictureError, "cut.png is no picture, or a damaged one"),
        ("a.tif", "float", PictureError, "a.tif has pixels of floating-point numbers"),
    ],
)
def test_one_line_for_what_cannot_be_read(
    tmp_path: Path, name: str, data: bytes | str | None, kind: type[DiffgenError], says: str
) -> None:
    path = tmp_path / name
    if data == "bomb":
        bomb(path)
    elif data == "cut":
        saved(Image.effect_noise((64, 64), 50), path)
        path.write_bytes(path.read_bytes()[:900])
    elif data == "float":
        saved(Image.new("F", (8, 8), 0.5), path)
    elif isinstance(data, bytes):
        path.write_bytes(data)
    with pytest.raises(kind, match=says) as error:
        Source.read(path)
    assert "\n" not in str(error.value)


def test_a_folder_holds_its_pictures_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["a.PNG", "b.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no pictures in the folder"):
        pictures_in(tmp_path / "none")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_pictures_is_taken_and_that_is_said(
    tmp_path: Path, suffix: str
) -> None:
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    path = saved(first, tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    source = Source.read(path)
    red, _, blue = source.image.convert("RGB").getpixel((4, 4))
    assert (source.frames, red > 200, blue < 60) == (2, True, True)
    config = Model.open().checkpoint.config
    for settings in (Editing(init=str(path)), Editing(init=str(path), mask=str(path))):
        notes = Edit.make(settings, str(path), (256, 256), config).notes
        assert f"a.{suffix} has 2 pictures; the first is taken" in notes


def test_a_dark_mask_is_said(tmp_path: Path) -> None:
    """Ones where 255 was meant: the picture would come back unchanged without a word."""
    init = saved(Image.new("RGB", (256, 256), "red"), tmp_path / "a.png")
    config = Model.open().checkpoint.config
    for level, said in [(1, True), (127, True), (128, False), (255, False)]:
        mask = Image.new("L", (256, 256))
        mask.paste(level, (0, 0, 100, 100))
        path = saved(mask, tmp_path / "mask.png")
        edit = Edit.make(Editing(init=str(init), mask=str(path)), str(init), (None, None), config)
        assert any(f"no more than {level} of 255" in note for note in edit.notes) == said


@pytest.mark.parametrize("levels", [(0, 70_000), (-5, 100)])
def test_pixels_of_more_than_16_bits_are_refused(tmp_path: Path, levels: tuple[int, int]) -> None:
    image = Image.new("I", (8, 6), levels[0])
    image.putpixel((3, 3), levels[1])
    with pytest.raises(PictureError, match="has pixels of 32-bit numbers, whose white is unknown"):
        Source.read(saved(image, tmp_path / "a.tif"))
