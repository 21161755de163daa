"""A brush on a picture of any shape: polygons, discs, strokes and gradients, smoothed at the end."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`share` of b and the rest of a."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


class Brush:
    """Draws at a multiple of the final (width, height), at x and y from 0 to 1 with y down.

    Radii, widths of lines and the steps of `beside` are shares of the shorter side, so that what is
    round stays round. light: what the colours of `fill` are multiplied with (the time of day).
    """

    def __init__(self, size: tuple[int, int], light: tuple[float, float, float]) -> None:
        self.short = min(size)
        self.oversample = 4 if self.short < 96 else 3 if self.short < 192 else 2
        self.width, self.height = (side * self.oversample for side in size)
        self.side = self.short * self.oversample
        self.across, self.down = self.width / self.side, self.height / self.side
        self.light = light
        self.image = Image.new("RGB", (self.width, self.height))
        self._draw = ImageDraw.Draw(self.image)

    def beside(self, point: Point, dx: float, dy: float) -> Point:
        """The point so many shorter sides to the right and down."""
        return point[0] + dx / self.across, point[1] + dy / self.down

    def lit(self, colour: RGB) -> RGB:
        """A surface's colour at this time of day."""
        red, green, blue = (round(c * k) for c, k in zip(colour, self.light, strict=True))
        return red, green, blue

    def gradient(self, top: float, bottom: float, colours: Sequence[RGB]) -> None:
        """Fill a band with evenly spaced colours, as given (no light applied)."""
        first, last = round(top * self.height), round(bottom * self.height)
        steps = np.linspace(0, len(colours) - 1, last - first)
        table = np.asarray(colours, dtype=np.float32)
        column = np.stack(
            [np.interp(steps, range(len(colours)), table[:, c]) for c in range(3)], axis=-1
        )
        strip = Image.fromarray(column[:, None].round().astype(np.uint8))
        self.image.paste(
            strip.resize((self.width, last - first), Image.Resampling.NEAREST), (0, first)
        )

    def polygon(self, points: Sequence[Point], colour: RGB, *, lit: bool = True) -> None:
        """A filled polygon."""
        fill = self.lit(colour) if lit else colour
        self._draw.polygon([self._pixel(point) for point in points], fill=fill)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: RGB, *, lit: bool = True
    ) -> None:
        """A filled ellipse about (x, y)."""
        self._draw.ellipse(self._box(x, y, rx, ry), fill=self.lit(colour) if lit else colour)

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, colour: RGB, *, lit: bool = True
    ) -> None:
        """A filled rectangle."""
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour, lit=lit)

    def stroke(
        self, points: Sequence[Point], width: float, colour: RGB, *, lit: bool = True
    ) -> None:
        """A line of a width given as a share of the shorter side."""
        self._draw.line(
            [self._pixel(point) for point in points],
            fill=self.lit(colour) if lit else colour,
            width=max(1, round(width * self.side)),
            joint="curve",
        )

    def arc(self, x: float, y: float, radius: float, width: float, colour: RGB) -> None:
        """The upper half of a ring, as given (no light applied)."""
        box = self._box(x, y, radius, radius)
        self._draw.arc(box, 180, 360, fill=colour, width=max(1, round(width * self.side)))

    def picture(self) -> NDArray[np.float32]:
        """The finished picture, (height, width, 3) float32, 0 to 1."""
        small = self.image.reduce(self.oversample)
        return np.asarray(small, dtype=np.float32) / np.float32(255)

    def _pixel(self, point: Point) -> Point:
        return point[0] * self.width, point[1] * self.height

    def _box(self, x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
        (x, y), n = self._pixel((x, y)), self.side
        return x - rx * n, y - ry * n, x + rx * n, y + ry * n
