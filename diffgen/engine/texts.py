"""Texts inside pictures of all programs, by keyword; the files are not trusted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from diffgen.engine.encoding import EXIF_IFD, RECORD_NAMESPACE, USER_COMMENT
from diffgen.errors import ConfigError, UsageError
from diffgen.jsonfile import parse_json

TEXT_AT_MOST = 1 << 20  # bytes of one text, unpacked
TEXTS_AT_MOST = 64
FILE_AT_MOST = 512 << 20  # bytes of a picture that is no PNG, whose texts cannot be skipped
# A picture in whose pixels a text is looked for: bytes of its file, and pixels.
HIDING_FILE, HIDING_PIXELS = 32 << 20, 16 << 20
PNG = b"\x89PNG\r\n\x1a\n"
OTHERS = ("JPEG", "WEBP", "AVIF", "GIF")
XMP = "XML:com.adobe.xmp"
DRAW_THINGS = "draw things"  # the keyword of what that program writes into XMP
# Tags in which ComfyUI keeps "prompt:{...}" and "workflow:{...}": camera makes and the like.
COMFY_TAGS = (0x010E, 0x010F, 0x0110)
COMFY_KEYS = ("prompt", "workflow")
# What a text in the lowest bits of the transparency begins with, and whether it is packed.
STEALTHY = {b"stealth_pnginfo": False, b"stealth_pngcomp": True}


def read_texts(path: Path) -> dict[str, str]:
    """Texts inside a picture, by keyword: all of a PNG's; of others what EXIF, XMP and comments
    hold, under the keywords that a PNG has for it.

    Texts longer than `TEXT_AT_MOST` are skipped. Raises UsageError for an unreadable file.
    """
    try:
        if path.is_fifo():  # opening it would wait for a writer
            raise UsageError(f"{path}: no picture to be read: it is a pipe")
        with path.open("rb") as file:
            is_png = file.read(len(PNG)) == PNG
            texts = dict(_png_texts(file)) if is_png else _other_texts(path)
        if not texts and is_png and path.stat().st_size <= HIDING_FILE:
            texts = _hidden_texts(path)
    except OSError as error:
        reason = error.strerror or "it is damaged or no PNG, JPEG, WebP, AVIF or GIF"
        raise UsageError(f"{path}: no picture to be read: {reason}") from error
    return texts | _xmp_texts(texts.pop(XMP, ""))


def _png_texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The text chunks of a PNG; too long ones are skipped unread."""
    found = 0
    while found < TEXTS_AT_MOST and len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4]), head[4:]
        if kind == b"IEND":
            return
        if kind in (b"tEXt", b"zTXt", b"iTXt") and length <= TEXT_AT_MOST:
            found += 1
            with suppress(ValueError, zlib.error):
                yield _png_text(kind, file.read(length))
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)


def _png_text(kind: bytes, data: bytes) -> tuple[str, str]:
    """Keyword and text of a chunk (PNG specification, 11.3.3). Raises ValueError, zlib.error."""
    keyword, rest = data.split(b"\0", 1)
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        return name, rest.decode("latin-1")
    if kind == b"zTXt":
        return name, _unpacked(rest[1:]).decode("latin-1")
    packed, rest = rest[:1] == b"\1", rest[2:]
    _language, _translated, text = rest.split(b"\0", 2)
    return name, (_unpacked(text) if packed else text).decode("utf-8")


def _unpacked(data: bytes, bits: int = zlib.MAX_WBITS) -> bytes:
    text = zlib.decompressobj(bits).decompress(data, TEXT_AT_MOST + 1)
    if len(text) > TEXT_AT_MOST:
        raise ValueError("a text that unpacks to too much")
    return text


def _other_texts(path: Path) -> dict[str, str]:
    """EXIF's UserComment, ComfyUI's tags, a comment, the XMP packet. Raises OSError."""
    from PIL import Image

    if path.stat().st_size > FILE_AT_MOST:
        raise OSError(0, f"it has more than {FILE_AT_MOST >> 20} MiB")
    try:
        with Image.open(path, formats=OTHERS) as image:
            exif, is_gif = image.getexif(), image.format == "GIF"
            comment = _commented(exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b""))
            tags = [exif.get(tag) for tag in COMFY_TAGS]
            xmp, said = (_decoded(image.info.get(name, b"")) for name in ("xmp", "comment"))
    except (ValueError, SyntaxError, KeyError, TypeError, Image.DecompressionBombError) as error:
        raise OSError(0, f"it is damaged: {error}") from error
    texts = {"diffgen" if is_gif else "parameters": said, "parameters": comment, XMP: xmp}
    if said and not comment and not is_gif:
        texts["parameters"] = said
    for tag in tags:
        keyword, _, text = tag.partition(":") if isinstance(tag, str) else ("", "", "")
        if keyword.lower() in COMFY_KEYS and len(text) <= TEXT_AT_MOST:
            texts[keyword.lower()] = text
    return {keyword: text for keyword, text in texts.items() if text}


def _decoded(data: object) -> str:
    short = isinstance(data, bytes) and len(data) <= TEXT_AT_MOST
    return data.decode("utf-8", "replace") if short and isinstance(data, bytes) else ""


def _commented(comment: object) -> str:
    """EXIF's UserComment, whose first eight bytes say how it is written (EXIF 2.3, 4.6.5)."""
    if not isinstance(comment, bytes):
        return ""
    code, text = comment[:8], comment[8 : TEXT_AT_MOST + 8]
    if code == b"UNICODE\0":
        return _utf16(text)
    if code in (b"ASCII\0\0\0", bytes(8)):
        return text.decode("utf-8", "replace").rstrip("\0")
    return _decoded(comment) if comment.startswith(b"{") else ""


def _hidden_texts(path: Path) -> dict[str, str]:
    """What NovelAI and a plugin of A1111 keep in the lowest bits of the transparency, column by
    column: a signature, the number of bits that follow, and those.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode != "RGBA" or image.width * image.height > HIDING_PIXELS:
                return {}
            alpha = np.asarray(image.getchannel("A"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {}  # the texts of a damaged picture are what was asked for
    data = np.packbits(alpha.T.reshape(-1) & 1).tobytes()
    packed = STEALTHY.get(data[:15])
    if packed is None:
        return {}
    content = data[19 : 19 + min(int.from_bytes(data[15:19]) // 8, TEXT_AT_MOST)]
    with suppress(ValueError, zlib.error, ConfigError):
        text = (_unpacked(content, zlib.MAX_WBITS | 16) if packed else content).decode("utf-8")
        found = parse_json(text, str(path)) if text.startswith("{") else {"parameters": text}
        return {name: value for name, value in found.items() if isinstance(value, str)}
    return {}


def _utf16(data: bytes) -> str:
    """Decode UTF-16. EXIF omits the byte order; in Latin text every other byte is zero."""
    high, low = data[0::2].count(0), data[1::2].count(0)
    return data.decode("utf-16-le" if low > high else "utf-16-be", "replace")


def _xmp_texts(xmp: str) -> dict[str, str]:
    """Our record, Draw Things' JSON and stable-diffusion.cpp's text."""
    if "<!" in xmp:  # no document types: entities can expand without bound
        return {}
    texts: dict[str, str] = {}
    with suppress(ElementTree.ParseError, ValueError):
        for node in ElementTree.fromstring(xmp.strip("\ufeff\0 \n")).iter():
            for name, value in node.items():
                if name == f"{{{RECORD_NAMESPACE}}}record":
                    texts["diffgen"] = value
                elif name.endswith("}parameters"):
                    texts["parameters"] = value
            if node.tag.endswith("}UserComment"):
                texts[DRAW_THINGS] = "".join(node.itertext()).strip()
    return texts
