"""Open picture files safely: only named formats, within limits, upright.

By default Pillow tries every format it knows, and hands PostScript to Ghostscript, whatever the
file's suffix. Only formats are named here that Pillow decodes by itself or with a library for
exactly that.
"""

from __future__ import annotations

import codecs
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from itertools import dropwhile

from PIL import Image, UnidentifiedImageError

from diffgen.pictures.jpegxl import BOXES, CODESTREAM, jpeg_xl_size
from diffgen.types import Size

FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB"),
    *("TIFF", "AVIF", "JPEG2000", "QOI", "PPM"),
)
SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jpg_large", ".png_large"),
        *(".mpo", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".jp2", ".j2k"),
        *(".j2c", ".jpx", ".qoi", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".tga", ".heic", ".heif", ".hif", ".jxl"),
    )
)
ANIMATED = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")  # or with pages; MPO's others are thumbnails
TGA = ".tga"  # has no mark of its own: anything else might be taken for it
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

MAX_PIXELS = 500_000_000  # decoded, 2 GB; Pillow's own limit is for files from strangers
MAX_BYTES = 1 << 30

DAMAGED = "damaged pictures, left out"
TEXT = "text, not pictures"
LARGE = f"pictures of more than {MAX_PIXELS // 10**6} megapixels, left out"
HUGE = f"files of more than {MAX_BYTES >> 30} GiB, left out"
FLOATS = "pictures of floating-point numbers, whose white is unknown, left out"
WIDE = "pictures of 32-bit numbers, whose white is unknown, left out"
NEEDS = "pictures left out until `pip install {}`"

ORIENTATION = 0x0112  # the EXIF tag
TURNING = (b"eXIf", b"tEXtRaw profile", b"zTXtRaw profile", b"iTXtXML:com.adobe.xmp")  # PNG's
TAG_ERRORS = (
    SyntaxError,
    ValueError,
    TypeError,
    OSError,
    LookupError,
    ArithmeticError,
    struct.error,
)
JPEG_TAIL = 1024  # bytes at the end that contain the end mark of a whole file

# Pillow has one limit for the whole process: it refuses twice as many pixels, before it decodes
# them, and warns on stderr of what lies between.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Odd tags beside sound pixels, of which it warns in words of its own, decide nothing here.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


class DamagedPicture(Exception):
    """A picture that cannot be used; `problem` is the kind of reason, for reports."""

    def __init__(self, text: str, problem: str = DAMAGED) -> None:
        super().__init__(text)
        self.problem = problem


@contextmanager
def damage_told() -> Iterator[None]:
    """Turn every exception of Pillow's decoders for a damaged file into DamagedPicture."""
    try:
        yield
    except (DamagedPicture, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DamagedPicture(str(error), LARGE) from error
    except Exception as error:
        raise DamagedPicture(str(error)) from error


def open_picture(data: bytes, suffix: str = "") -> Image.Image:
    """Open a picture from bytes and read its header; only TGA needs the suffix.

    Raises DamagedPicture.
    """
    with damage_told():
        try:
            image = Image.open(BytesIO(data), formats=_formats(data, suffix))
        except UnidentifiedImageError as error:
            raise DamagedPicture(
                "not a picture", TEXT if is_text(data[:64]) else DAMAGED
            ) from error
        _check_size(image.size)
        if image.mode == "F":
            raise DamagedPicture("floating-point pixels", FLOATS)
        if _turns_when_decoded(image, data):
            image.load()
        return image


def frames_of(image: Image.Image) -> int:
    """How many pictures a file shows one after the other; 1 where the others are of another kind."""
    return int(getattr(image, "n_frames", 1)) if image.format in ANIMATED else 1


def check_whole(image: Image.Image, data: bytes) -> None:
    """Decode a picture if its file looks cut or damaged. Raises DamagedPicture if it is."""
    if not _looks_whole(data, image.format or ""):
        with damage_told():
            image.load()


def orientation(image: Image.Image) -> int:
    """A picture's orientation, as EXIF numbers it; 1 is upright. Pillow and libheif apply some."""
    if image.format == "TIFF":
        return 1
    try:  # PNG's own method would decode the picture, just to look for the tag
        return int(Image.Image.getexif(image).get(ORIENTATION, 1))
    except TAG_ERRORS:  # damaged tags beside a sound picture
        return 1


def is_text(start: bytes) -> bool:
    """Whether the beginning of a file is text, such as a web page, in UTF-8 or UTF-16."""
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")()
        text = decoder.decode(start).strip()
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c.isspace() for c in text)


def _check_size(size: Size) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise DamagedPicture("too large", LARGE)


def _formats(data: bytes, suffix: str) -> tuple[str, ...]:
    """The possible formats of a file. Raises DamagedPicture for a missing library.

    Also raises it for a JPEG XL picture that is too large, since opening would decode it.
    """
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in HEIF_BRANDS and b"avif" not in data[16:64]:
        return _with("pillow-heif", "HEIF")
    if data.startswith((CODESTREAM, BOXES)):
        _check_size(jpeg_xl_size(data) or (0, 0))
        return _with("pillow-jxl-plugin", "JXL")
    return (*_known(), "TGA") if suffix.lower() == TGA else _known()


@cache
def _known() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # older Pillows lack AVIF


def _with(package: str, name: str) -> tuple[str, ...]:
    try:
        if package == "pillow-heif":
            from pillow_heif import register_heif_opener

            register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401
    except ImportError as error:
        raise DamagedPicture(f"needs {package}", NEEDS.format(package)) from error
    return (name,)


def _turns_when_decoded(image: Image.Image, data: bytes) -> bool:
    """Whether the orientation is only known after decoding.

    A PNG's tags may follow its pixels; Pillow rotates a TIFF, and does not report its size before
    if only XMP asks for that.
    """
    if image.format == "PNG":
        behind = dropwhile(lambda chunk: chunk[0] != b"IDAT", _chunks(data))
        return any(
            (kind + data[start : start + 20]).startswith(TURNING) for kind, start, _ in behind
        )
    return image.format == "TIFF" and b"tiff:Orientation" in data


def _looks_whole(data: bytes, kind: str) -> bool:
    """Whether a file ends as its format requires; True for formats without an end mark."""
    if kind == "PNG":
        return _sums_are_right(data)
    if kind in ("JPEG", "MPO"):  # inside the pixels this marker cannot occur
        return b"\xff\xd9" in data[-JPEG_TAIL:]
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return kind != "GIF" or data.rstrip(b"\0").endswith(b";")


def _sums_are_right(png: bytes) -> bool:
    """Check a PNG's chunks, up to the last, by their CRC."""
    view, last = memoryview(png), b""
    for kind, start, end in _chunks(png):
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            return False
        last = kind
    return last == b"IEND"


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kinds of a PNG's chunks, and the begin and end of their data."""
    start = 8
    while start + 12 <= len(png):
        kind, data = png[start + 4 : start + 8], start + 8
        end = data + int.from_bytes(png[start : start + 4])
        yield kind, data, end
        start = end + 4 if kind != b"IEND" else len(png)
