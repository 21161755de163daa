import io
import struct

import pytest
from PIL import Image

from diffgen.pictures.jpegxl import jpeg_xl_size
from diffgen.pictures.opening import DAMAGED, LARGE
from diffgen.train.data.pictures import Entry, probe


def jpeg_xl(width, height, *, boxed=False):
    """The first bytes of a JPEG XL file of that size."""
    value, at = 0, 0

    def put(number, count):
        nonlocal value, at
        value |= number << at
        at += count

    put(0, 1)
    for side in (height, width):
        put(3, 2)
        put(side - 1, 30)
        put(0, 3 if side is height else 0)
    stream = b"\xff\x0a" + value.to_bytes(12, "little")
    box = struct.pack(">I", 8 + len(stream)) + b"jxlc" + stream
    return b"\0\0\0\x0cJXL \r\n\x87\n" + box if boxed else stream


@pytest.mark.parametrize("boxed", [False, True])
def test_a_jpeg_xl_picture_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path, boxed):
    data = jpeg_xl(30_000, 20_001, boxed=boxed)
    assert jpeg_xl_size(data) == (30_000, 20_001)
    (tmp_path / "a.jxl").write_bytes(data)
    assert probe(Entry("a.jxl", tmp_path / "a.jxl")).problem == LARGE


@pytest.mark.parametrize(
    "size",
    [
        *((8, 8), (64, 128), (256, 256), (257, 300), (120, 100), (40, 30), (45, 30), (160, 90)),
        *((125, 100), (200, 100), (1, 1), (3000, 10), (37, 5000)),
    ],
)
def test_the_size_of_a_jpeg_xl_picture_is_read_as_its_library_reads_it(size):
    pytest.importorskip("pillow_jxl")
    for options in ({}, {"exif": Image.Exif().tobytes()}):  # the second in boxes
        file = io.BytesIO()
        Image.new("L", size).save(file, "JXL", effort=1, **options)
        assert jpeg_xl_size(file.getvalue()) == size


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_header_that_is_cut_off_is_damaged(tmp_path, cut):
    pytest.importorskip("pillow_jxl")
    (tmp_path / "a.jxl").write_bytes(jpeg_xl(300, 200, boxed=True)[:cut])
    assert probe(Entry("a.jxl", tmp_path / "a.jxl")).problem == DAMAGED
