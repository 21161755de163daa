"""sRGB to OKLCH and back (Ottosson 2020, https://bottosson.github.io/posts/oklab/)."""

import math
from typing import Final

RGB = tuple[int, int, int]
LCH = tuple[float, float, float]
Rows = tuple[tuple[float, float, float], ...]

_TO_LMS: Final[Rows] = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB: Final[Rows] = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_FROM_LAB: Final[Rows] = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_FROM_LMS: Final[Rows] = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def _apply(rows: Rows, v: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, v, strict=True)) for row in rows)


def _linear(c: int) -> float:
    x = c / 255
    return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4


def _encode(x: float) -> int:
    y = 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055
    return round(255 * min(max(y, 0.0), 1.0))


def to_oklch(rgb: RGB) -> LCH:
    """Lightness 0 to 1, chroma, hue in degrees."""
    lms = _apply(_TO_LMS, tuple(_linear(c) for c in rgb))
    lightness, a, b = _apply(_TO_LAB, tuple(math.cbrt(v) for v in lms))
    return lightness, math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360


def from_oklch(lightness: float, chroma: float, hue: float) -> RGB:
    """The nearest sRGB colour, each channel clipped."""
    angle = math.radians(hue)
    lab = (min(max(lightness, 0.0), 1.0), chroma * math.cos(angle), chroma * math.sin(angle))
    red, green, blue = _apply(_FROM_LMS, tuple(v**3 for v in _apply(_FROM_LAB, lab)))
    return _encode(red), _encode(green), _encode(blue)


def hue_distance(a: float, b: float) -> float:
    """The angle between two hues, 0 to 180 degrees."""
    return abs((a - b + 180) % 360 - 180)
