"""Read how pictures were made, by whichever program; the files are not trusted.

diffgen's own record comes first, then A1111's text, which most programs write. sd-parsers, if
installed, reads ComfyUI's graphs and the JSON of InvokeAI and NovelAI.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

from diffgen.engine.encoding import EXIF_IFD, RECORD_NAMESPACE, USER_COMMENT
from diffgen.errors import ConfigError, UsageError
from diffgen.jsonfile import parse_json

TEXT_AT_MOST = 1 << 20  # bytes of one text, unpacked
TEXTS_AT_MOST = 64
FILE_AT_MOST = 512 << 20  # bytes of other formats, whose texts cannot be skipped
PNG = b"\x89PNG\r\n\x1a\n"
OTHERS = ("JPEG", "WEBP", "AVIF", "GIF")
# A1111's grammar: a pair of the last line, and how many pairs make it a line of settings.
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
LEAST_PAIRS = 3
NEGATIVE = "Negative prompt:"


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """How a picture was made.

    `named` holds settings as text under the names that `source` uses; diffgen's own pictures have a
    `record` instead.
    """

    source: str
    prompt: str
    negative: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] | None = None


def read_settings(path: Path) -> PictureSettings:
    """How the picture in a file was made.

    Raises UsageError for a file that is no picture or has no metadata known here.
    """
    texts = read_texts(path)
    if own := _own_record(texts.get("diffgen", ""), path):
        return PictureSettings("diffgen", own["prompt"], own.get("negative"), record=own)
    if found := parse_parameters(texts.get("parameters", "")):
        return found
    if found := _by_sd_parsers(texts):
        return found
    said = f" (it has {', '.join(sorted(texts))})" if texts else ""
    raise UsageError(f"{path} does not say how it was made, or not in words known here{said}")


def read_texts(path: Path) -> dict[str, str]:
    """Texts inside a picture, by keyword: all of a PNG's; of others "parameters" and "diffgen".

    Texts longer than `TEXT_AT_MOST` are skipped. Raises UsageError for an unreadable file.
    """
    try:
        with path.open("rb") as file:
            is_png = file.read(len(PNG)) == PNG
            texts = dict(_png_texts(file)) if is_png else _other_texts(path)
    except OSError as error:
        reason = error.strerror or "it is damaged or no PNG, JPEG, WebP, AVIF or GIF"
        raise UsageError(f"{path}: no picture to be read: {reason}") from error
    record = _record_in_xmp(texts.pop("XML:com.adobe.xmp", ""))
    return {"diffgen": record} | texts if record else texts


def parse_parameters(text: str) -> PictureSettings | None:
    """Parse A1111's text; None if its last line holds no settings."""
    lines = [line.strip() for line in text.strip().split("\n")]
    pairs = PAIR.findall(lines[-1])
    if len(pairs) < LEAST_PAIRS:
        return None
    parts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in lines[:-1]:
        if line.startswith(NEGATIVE):
            negative, line = True, line.removeprefix(NEGATIVE).strip()
        parts[negative].append(line)
    named = {name.strip(): _unquoted(value) for name, value in pairs}
    prompt, negative_prompt = ("\n".join(parts[which]) for which in (False, True))
    return PictureSettings("A1111", prompt, negative_prompt or None, named)


def _own_record(text: str, path: Path) -> dict[str, Any] | None:
    if not text:
        return None
    with suppress(ConfigError):
        record = parse_json(text, str(path))
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):
            return record
    return None


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


def _unpacked(data: bytes) -> bytes:
    text = zlib.decompressobj().decompress(data, TEXT_AT_MOST + 1)
    if len(text) > TEXT_AT_MOST:
        raise ValueError("a text that unpacks to too much")
    return text


def _other_texts(path: Path) -> dict[str, str]:
    """EXIF's UserComment as A1111 writes it, and the XMP packet. Raises OSError."""
    from PIL import Image

    if path.stat().st_size > FILE_AT_MOST:
        raise OSError(0, f"it has more than {FILE_AT_MOST >> 20} MiB")
    texts: dict[str, str] = {}
    try:
        with Image.open(path, formats=OTHERS) as image:
            comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
            xmp = image.info.get("xmp", b"")
            said = image.info.get("comment", b"") if image.format == "GIF" else b""
    except (ValueError, SyntaxError, KeyError, TypeError, Image.DecompressionBombError) as error:
        raise OSError(0, f"it is damaged: {error}") from error
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        texts["parameters"] = _utf16(comment[8 : TEXT_AT_MOST + 8])
    if isinstance(said, bytes) and said.startswith(b"{") and len(said) <= TEXT_AT_MOST:
        texts["diffgen"] = said.decode("utf-8", "replace")
    if isinstance(xmp, bytes) and len(xmp) <= TEXT_AT_MOST:
        texts["XML:com.adobe.xmp"] = xmp.decode("utf-8", "replace")
    return texts


def _utf16(data: bytes) -> str:
    """Decode UTF-16. EXIF omits the byte order; in Latin text every other byte is zero."""
    high, low = data[0::2].count(0), data[1::2].count(0)
    return data.decode("utf-16-le" if low > high else "utf-16-be", "replace")


def _record_in_xmp(xmp: str) -> str:
    # No document types: entities can expand without bound.
    if RECORD_NAMESPACE not in xmp or "<!" in xmp:
        return ""
    with suppress(ElementTree.ParseError, ValueError):
        for node in ElementTree.fromstring(xmp.strip("\ufeff\0 \n")).iter():
            if record := node.get(f"{{{RECORD_NAMESPACE}}}record"):
                return record
    return ""


def _unquoted(value: str) -> str:
    value = value.strip()
    if value.startswith('"'):
        with suppress(ConfigError):
            return str(parse_json(value, "a quoted value"))
    return value


def _by_sd_parsers(texts: Mapping[str, str]) -> PictureSettings | None:
    """The result of sd-parsers, which never gets texts over the limit."""
    try:
        from sd_parsers import parsers
    except ImportError:
        return None
    for kind in (parsers.ComfyUIParser, parsers.InvokeAIParser, parsers.NovelAIParser):
        with suppress(Exception):  # it lets any exception of its parsers through
            info = kind().parse({"workflow": '{"links": []}'} | dict(texts))
            if info and info.samplers:
                return _from_sd_parsers(kind.__name__.removesuffix("Parser"), info)
    return None


def _from_sd_parsers(source: str, info: Any) -> PictureSettings:
    sampler = info.samplers[0]
    named = {str(name): str(value) for name, value in sampler.parameters.items()}
    named |= {"sampler": str(sampler.name)} if sampler.name else {}
    if sampler.model and sampler.model.name:
        named["model"] = str(sampler.model.name)
    tables = [info.metadata, *(each for some in info.metadata.values() for each in _tables(some))]
    for name in ("width", "height", "steps"):
        values = (table[name] for table in tables if isinstance(table.get(name), int | float))
        if name not in named and (value := next(values, None)) is not None:
            named[name] = str(value)
    prompt, negative = (
        ", ".join(str(each.value) for each in some)
        for some in (sampler.prompts, sampler.negative_prompts)
    )
    return PictureSettings(source, prompt, negative or None, named)


def _tables(value: Any) -> list[dict[str, Any]]:
    """The tables in sd-parsers' result for other ComfyUI nodes."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
