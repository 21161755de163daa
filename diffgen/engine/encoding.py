"""Pictures as file bytes, with their metadata inside.

PNG holds text; JPEG, WebP and AVIF hold A1111's text in EXIF's UserComment, as that program writes
it, and diffgen's record in XMP. Each carries IPTC's mark of a picture made by a model
(cv.iptc.org/newscodes/digitalsourcetype).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, get_args
from xml.sax.saxutils import quoteattr

from diffgen.engine.metadata import parameters_text, record_text, text_chunks
from diffgen.errors import UsageError
from diffgen.types import PictureFormat

if TYPE_CHECKING:
    from PIL import Image

FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)
SUFFIXES: dict[str, PictureFormat] = {
    "png": "png",
    "jpg": "jpeg",
    "jpeg": "jpeg",
    "webp": "webp",
    "avif": "avif",
}
USUAL_SUFFIX = {"png": "png", "jpeg": "jpg", "webp": "webp", "avif": "avif"}
QUALITY = 90  # of the lossy formats
FRAME_TIME = 100  # milliseconds of an animation
FINE = 90  # from this quality on, JPEG keeps colours at full resolution
SEGMENT = 65_000  # bytes of a JPEG's EXIF or XMP
USER_COMMENT, EXIF_IFD = 0x9286, 0x8769
AI_MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
RECORD_NAMESPACE = "https://diffgen.invalid/record/1/"
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:diffgen={namespace} \
xmp:CreatorTool={tool} Iptc4xmpExt:DigitalSourceType={source}{record}/>\
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""


def format_of(suffix: str) -> PictureFormat:
    """The format of a file's suffix. Raises UsageError."""
    word = suffix.lower().lstrip(".")
    if word not in SUFFIXES:
        raise UsageError(
            f"{suffix or 'a name without suffix'}: pictures are {', '.join(SUFFIXES)} files"
        )
    return SUFFIXES[word]


def encode(
    image: Image.Image,
    record: Mapping[str, Any],
    *,
    form: PictureFormat = "png",
    quality: int | None = None,
    metadata: bool = True,
) -> bytes:
    """A picture as a file's bytes, equal for equal pictures and records.

    `quality`, 1 to 100, is for lossy formats. Raises UsageError for a record too long for a JPEG.
    """
    options: dict[str, Any] = {} if form == "png" else {"quality": quality or QUALITY}
    if form == "jpeg":
        options |= {"subsampling": 0 if options["quality"] >= FINE else 2, "optimize": True}
    if metadata:
        options |= _inside(record, form)
    file = BytesIO()
    image.save(file, format=form.upper(), **options)
    return file.getvalue()


def encode_frames(
    images: Sequence[Image.Image],
    record: Mapping[str, Any],
    *,
    form: str,
    quality: int | None = None,
    metadata: bool = True,
) -> bytes:
    """An animation of pictures of one size as the bytes of a looping GIF or WebP file.

    A GIF holds the record in its comment.
    """
    options: dict[str, Any] = {"append_images": images[1:], "duration": FRAME_TIME, "loop": 0}
    if form == "webp":
        options |= {"quality": quality or QUALITY}
    if metadata and form == "webp":
        options |= _inside(record, "webp")
    elif metadata:
        options |= {"comment": record_text(record, ascii_only=True).encode()}
    file = BytesIO()
    images[0].save(file, format=form.upper(), save_all=True, **options)
    return file.getvalue()


def _inside(record: Mapping[str, Any], form: PictureFormat) -> dict[str, Any]:
    if form == "png":
        return {"pnginfo": _png_text(record)}
    from PIL import Image

    exif = Image.Exif()
    comment = parameters_text(record).encode("utf-16-be", "replace")
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + comment
    inside = {"exif": exif.tobytes(), "xmp": _xmp(record, whole=True)}
    if form == "jpeg" and max(map(len, inside.values())) > SEGMENT:
        raise UsageError("so long a prompt has no room in a JPEG; take png or --no-metadata")
    return inside


def _png_text(record: Mapping[str, Any]) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for keyword, text in text_chunks(record).items():
        info.add_text(keyword, text)
    info.add_itxt("XML:com.adobe.xmp", _xmp(record, whole=False).decode())
    return info


def _xmp(record: Mapping[str, Any], *, whole: bool) -> bytes:
    inside = f" diffgen:record={quoteattr(record_text(record, ascii_only=True))}" if whole else ""
    return XMP.format(
        namespace=quoteattr(RECORD_NAMESPACE),
        tool=quoteattr(f"diffgen {record['version']}"),
        source=quoteattr(AI_MADE),
        record=inside,
    ).encode()
