import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib

import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from diffgen.pictures import opening
from diffgen.pictures.opening import DAMAGED, FLOATS, HUGE, LARGE, NEEDS, TEXT, DamagedPicture
from diffgen.train.data.pictures import Entry, decode, probe

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(size, *chunks, pixels=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return SIGNATURE + header + b"".join(chunks) + body + chunk(b"IEND", b"")


def entry_of(folder, name, data):
    (folder / name).write_bytes(data)
    return Entry(name, folder / name)


def saved(image, folder, name, **options):
    image.save(folder / name, **options)
    return Entry(name, folder / name)


def halves(size=(32, 16)):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    return image


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)


def sideways_png(where, orientation):
    """A PNG that says in one of the four ways how it lies."""
    file = io.BytesIO()
    texts, exif = PngInfo(), exif_of(orientation)
    if where == "xmp":
        texts.add_itxt("XML:com.adobe.xmp", XMP.format(orientation))
    if where == "imagemagick":
        raw = exif.hex()
        texts.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{raw}\n", zip=True)
    early = {"exif": exif} if where == "early" else {}
    halves().save(file, "PNG", pnginfo=texts, **early)
    data = file.getvalue()
    raw = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    late = {
        "late": chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")),
        "late xmp": chunk(
            b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP.format(orientation).encode()
        ),
        "late text": chunk(b"tEXt", b"Raw profile type exif\0" + raw),
    }
    if where in late:
        end = data.rindex(b"IEND") - 4
        data = data[:end] + late[where] + data[end:]
    return data


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("where", ["xmp", "imagemagick", "early", "late", "late xmp", "late text"])
def test_a_png_is_turned_wherever_it_says_how_it_lies(tmp_path, where, orientation):
    entry = entry_of(tmp_path, "a.png", sideways_png(where, orientation))
    with Image.open(entry.file) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert probe(entry).size == expected.size
    assert expected.size == ((32, 16) if orientation == 3 else (16, 32))
    assert decode(entry, expected.size)[0] == expected.tobytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif", "a.jxl", "a.heic", "a.tif", "a.jp2"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_other_formats_are_turned_as_pillow_turns_them(tmp_path, name, orientation):
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    if name.endswith("jxl"):
        pytest.importorskip("pillow_jxl")
    entry = saved(halves((128, 64)), tmp_path, name, exif=exif_of(orientation))
    with Image.open(entry.file) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert probe(entry).size == expected.size
    assert decode(entry, expected.size)[0] == expected.tobytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif", "a.heic", "a.tif"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_xmp_turns_other_formats_as_well(tmp_path, name, orientation):
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    xmp = XMP.format(orientation).encode()
    options = {"tiffinfo": {700: xmp}} if name.endswith("tif") else {"xmp": xmp}
    entry = saved(halves((128, 64)), tmp_path, name, **options)
    with Image.open(entry.file) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert expected.size == ((128, 64) if orientation == 3 else (64, 128))
    assert probe(entry).size == expected.size
    assert decode(entry, expected.size)[0] == expected.tobytes()


@pytest.mark.parametrize(
    "name",
    [
        *("a.jpe", "a.JFIF", "a.jpg_large", "a.tga", "a.ppm", "a.pgm", "a.bmp", "a.dib"),
        *("a.gif", "a.qoi", "a.tiff", "a.mpo", "a.jp2", "a.j2k"),
    ],
)
def test_what_pillow_reads_by_itself_is_read(tmp_path, name):
    assert os.path.splitext(name)[1].lower() in opening.SUFFIXES
    kinds = {"a.jpg_large": "JPEG", "a.pgm": "PPM", "a.JFIF": "JPEG"}
    image = halves().convert("L") if name == "a.pgm" else halves()
    entry = saved(image, tmp_path, name, format=kinds.get(name))
    assert probe(entry).size == (32, 16)
    pixels = Image.frombytes("RGB", (32, 16), decode(entry, (32, 16))[0])
    left, right = pixels.getpixel((2, 8)), pixels.getpixel((29, 8))
    assert left != right


@pytest.mark.parametrize("name", ["a.jpg", "a.heic"])
def test_a_photograph_of_an_iphone_is_known_by_what_it_holds(tmp_path, name):
    pytest.importorskip("pillow_heif").register_heif_opener()
    entry = saved(halves((128, 64)), tmp_path, name, format="HEIF")
    assert probe(entry).size == (128, 64)


@pytest.mark.parametrize(
    ("start", "package"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "pillow-heif"),
        (b"\xff\x0a\xfa\x1f", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "pillow-jxl-plugin"),
    ],
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, start, package):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert probe(entry_of(tmp_path, "a.jpg", start)).problem == NEEDS.format(package)


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for Ghostscript")
@pytest.mark.parametrize("name", ["zz.jpg", "zz.png", "zz.tga", "zz.heic", "zz.tif"])
def test_no_picture_is_handed_to_ghostscript(tmp_path, monkeypatch, name):
    gs = tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\necho ran > {tmp_path}/ran\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gs.parent}:{os.environ['PATH']}")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    entry = entry_of(tmp_path, name, script)
    code = f"from PIL import Image; Image.open({str(entry.file)!r}).load()"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (tmp_path / "ran").exists()  # without named formats it would be
    (tmp_path / "ran").unlink()
    assert probe(entry).problem == TEXT
    with pytest.raises(DamagedPicture):
        decode(entry, (8, 8))
    assert not (tmp_path / "ran").exists()


def test_a_picture_beyond_the_limit_is_told_from_a_damaged_one(tmp_path):
    assert probe(entry_of(tmp_path, "a.png", png_of((30_000, 20_000)))).problem == LARGE
    assert probe(entry_of(tmp_path, "b.png", png_of((60_000, 60_000)))).problem == LARGE
    canvas = b"VP8X" + struct.pack("<IIHBHB", 10, 0, 29_999, 0, 29_999, 0)
    webp = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    assert probe(entry_of(tmp_path, "a.webp", webp)).problem == LARGE


def test_odd_tags_beside_sound_pixels_are_no_reason_for_warnings(tmp_path):
    exif = exif_of(6)
    entry = saved(halves(), tmp_path, "a.jpg", exif=exif[:-8])
    code = textwrap.dedent(f"""
        from pathlib import Path
        from diffgen.train.data.pictures import Entry, probe
        print(probe(Entry("a.jpg", Path({str(entry.file)!r}))).size)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout in ("(32, 16)\n", "(16, 32)\n")
    assert done.stderr == ""


def test_a_panorama_beyond_pillows_limit_is_read_without_a_warning(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(png_of((14_000, 14_000), pixels=bytes(14_000 * 14_001)))
    code = textwrap.dedent(f"""
        from pathlib import Path
        from diffgen.train.data.pictures import Entry, decode, probe
        entry = Entry("a.png", Path({str(file)!r}))
        print(probe(entry).size, len(decode(entry, (8, 8))[0]))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(14000, 14000) 192\n", "")


def test_a_file_too_large_to_read_is_named(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate((1 << 30) + 1)  # a hole, which takes no room on the disk
    assert probe(Entry("a.png", tmp_path / "a.png")).problem == HUGE


def test_a_flood_of_text_in_a_png_is_not_unpacked(tmp_path):
    flood = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 << 20)))
    data = png_of((8, 8), flood, pixels=bytes(9 * 8))
    assert len(data) < 200_000
    assert probe(entry_of(tmp_path, "a.png", data)).problem == DAMAGED


def test_floating_point_pixels_are_refused_by_name(tmp_path):
    assert probe(saved(Image.new("F", (8, 8), 0.5), tmp_path, "a.tif")).problem == FLOATS


PAGE = "<!DOCTYPE html><html lang='de'><title>404: nicht gefunden, größer</title>\n"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", DAMAGED),
        (SIGNATURE + b"\0\0", DAMAGED),
        (bytes(100), DAMAGED),
        (PAGE.encode(), TEXT),
        (PAGE.encode("utf-8-sig"), TEXT),
        (PAGE.encode("utf-16"), TEXT),
        (b"\xef\xbb\xbf", DAMAGED),
        ("größe".encode() * 12, TEXT),  # cut in the middle of a letter
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", TEXT),
    ],
)
def test_text_is_told_from_damage(tmp_path, data, problem):
    found = probe(entry_of(tmp_path, "a.jpg", data))
    assert (found.size, found.problem) == (None, problem)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_picture_is_found_before_it_is_needed(tmp_path, suffix, share):
    entry = saved(Image.effect_noise((64, 64), 50).convert("RGB"), tmp_path, f"a.{suffix}")
    assert probe(entry).size == (64, 64)
    data = entry.file.read_bytes()
    assert probe(entry_of(tmp_path, f"a.{suffix}", data[: int(len(data) * share)])).size is None


def test_a_wrong_sum_alone_makes_no_damage(tmp_path):
    """Where Pillow can still decode the pixels, the picture is kept."""
    image = Image.effect_noise((64, 64), 50)
    entry = saved(image, tmp_path, "a.png")
    data = entry.file.read_bytes()
    text = bytearray(chunk(b"tEXt", b"Comment\0words"))
    text[-1] ^= 1
    end = data.rindex(b"IEND") - 4
    assert probe(entry_of(tmp_path, "a.png", data[:end] + text + data[end:])).size == (64, 64)
    for junk in (b"", b"\0" * 5, b"trailing"):
        assert probe(entry_of(tmp_path, "b.png", data + junk)).size == (64, 64)


@pytest.mark.parametrize("suffix", ["jpg", "gif"])
def test_what_follows_a_picture_does_not_matter(tmp_path, suffix):
    entry = saved(Image.effect_noise((64, 64), 50), tmp_path, f"a.{suffix}")
    data = entry.file.read_bytes() + b"trailing" * 1000
    assert probe(entry_of(tmp_path, f"a.{suffix}", data)).size == (64, 64)


def test_importing_needs_no_torch():
    code = "import sys, diffgen.pictures.opening, diffgen.train.data.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
