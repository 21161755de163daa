"""The size of a JPEG XL picture from its header (ISO/IEC 18181-1, SizeHeader; 18181-2, boxes).

The decoding library decodes the whole file on opening: the size must be known before, so that a
small file cannot fill the memory.
"""

from __future__ import annotations

from diffgen.types import Size

CODESTREAM, BOXES = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
HEADER = 16  # bytes of a codestream that hold its size
LENGTHS = (9, 13, 18, 30)  # bits of a side, by two bits ahead of it
RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height


def jpeg_xl_size(data: bytes) -> Size | None:
    """Width and height in pixels, before any rotation; None without a valid header."""
    start = _codestream(data)
    if start is None or data[start : start + 2] != CODESTREAM:
        return None
    bits = _Bits(data[start + 2 : start + HEADER])
    in_eights = bits.take(1) == 1
    height = bits.side(in_eights=in_eights)
    ratio = RATIOS[bits.take(3)]
    width = height * ratio[0] // ratio[1] if ratio else bits.side(in_eights=in_eights)
    return width, height


def _codestream(data: bytes) -> int | None:
    """The offset of the codestream: 0, or in the first box that holds it or a part of it."""
    if not data.startswith(BOXES):
        return 0
    start = 0
    while start + 8 <= len(data):
        length, kind = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        header = 8
        if length == 1:
            length, header = int.from_bytes(data[start + 8 : start + 16]), 16
        if kind in (b"jxlc", b"jxlp"):
            return start + header + (4 if kind == b"jxlp" else 0)
        if length < header:
            return None
        start += length
    return None


class _Bits:
    """Reads integers of some bits, lowest bits first; zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        """The next number."""
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def side(self, *, in_eights: bool) -> int:
        """The next side of a picture, in pixels."""
        return 8 * (1 + self.take(5)) if in_eights else 1 + self.take(LENGTHS[self.take(2)])
