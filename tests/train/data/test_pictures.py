import io

import pytest
from PIL import Image, ImageDraw

from diffgen.errors import ConfigError
from diffgen.pictures.opening import DamagedPicture
from diffgen.train.data.pictures import Entry, decode, probe


def save(image, path, **options):
    image.save(path, **options)
    return Entry(path.name, path)


def decoded(entry, size, **options):
    pixels, _ = decode(entry, size, **options)
    return Image.frombytes("RGB", size, pixels)


def quarters(size):
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", size, "white")
    w, h = size[0] // 2, size[1] // 2
    draw = ImageDraw.Draw(image)
    for corner, colour in (((0, 0), "red"), ((w, 0), "lime"), ((0, h), "blue")):
        draw.rectangle((*corner, corner[0] + w - 1, corner[1] + h - 1), fill=colour)
    return image


def corners(image):
    w, h = image.size
    return [image.getpixel(p) for p in ((1, 1), (w - 2, 1), (1, h - 2), (w - 2, h - 2))]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_every_orientation_comes_out_upright(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Turning by the inverse of what the tag says makes the file a camera would write.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL.Image.Transpose values
    upright = quarters((32, 16))
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    path = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}
    entry = save(stored, path, exif=exif, **options.get(suffix, {}))
    assert probe(entry).size == (32, 16)
    found = corners(decoded(entry, (32, 16)))
    expected = corners(upright)
    for a, b in zip(found, expected, strict=True):
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 3  # JPEG's rounding


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("I;16", (8, 8), 128 * 256), (128, 128, 128)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, image, expected):
    entry = save(image, tmp_path / ("a.tif" if image.mode == "CMYK" else "a.png"))
    assert decoded(entry, (4, 4)).getpixel((1, 1)) == expected


def test_a_transparent_palette_entry_is_white(tmp_path):
    entry = save(Image.new("P", (8, 8), 0), tmp_path / "a.png", transparency=0)
    assert decoded(entry, (4, 4)).getpixel((0, 0)) == (255, 255, 255)


def test_crop_flip_and_resize(tmp_path):
    entry = save(quarters((64, 32)), tmp_path / "a.png")
    red, lime, blue, white = corners(quarters((8, 8)))
    assert corners(decoded(entry, (64, 32))) == [red, lime, blue, white]
    assert corners(decoded(entry, (64, 32), flip=True)) == [lime, red, white, blue]
    assert corners(decoded(entry, (16, 16), x=0.0)) == [red, red, blue, blue]
    assert corners(decoded(entry, (16, 16), x=1.0)) == [lime, lime, white, white]


def test_a_piece_of_a_larger_file(tmp_path):
    file = io.BytesIO()
    quarters((8, 8)).save(file, "PNG")
    data = file.getvalue()
    (tmp_path / "all").write_bytes(b"x" * 100 + data + b"y" * 100)
    entry = Entry("a.png", tmp_path / "all", offset=100, length=len(data))
    assert decoded(entry, (8, 8)).tobytes() == quarters((8, 8)).tobytes()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
def test_a_truncated_picture_is_damaged(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DamagedPicture):
        decode(Entry(path.name, path), (8, 8))


def test_a_file_that_vanished_is_no_damaged_picture(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.png cannot be read"):
        decode(Entry("gone.png", tmp_path / "gone.png"), (8, 8))
