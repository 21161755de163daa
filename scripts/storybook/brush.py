"""A brush on a picture of side 1: polygons, discs, strokes and gradients, smoothed at the end."""

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
    """Draws at a multiple of the final size, in coordinates 0 to 1 with y down.

    light: what the colours of `fill` are multiplied with (the time of day).
    """

    def __init__(self, size: int, light: tuple[float, float, float]) -> None:
        self.size = size
        self.oversample = 4 if size < 96 else 3 if size < 192 else 2
        self.side = size * self.oversample
        self.light = light
        self.image = Image.new("RGB", (self.side, self.side))
        self._draw = ImageDraw.Draw(self.image)

    def lit(self, colour: RGB) -> RGB:
        """A surface's colour at this time of day."""
        red, green, blue = (round(c * k) for c, k in zip(colour, self.light, strict=True))
        return red, green, blue

    def gradient(self, top: float, bottom: float, colours: Sequence[RGB]) -> None:
        """Fill a band with evenly spaced colours, as given (no light applied)."""
        first, last = round(top * self.side), round(bottom * self.side)
        steps = np.linspace(0, len(colours) - 1, last - first)
        table = np.asarray(colours, dtype=np.float32)
        column = np.stack(
            [np.interp(steps, range(len(colours)), table[:, c]) for c in range(3)], axis=-1
        )
        strip = Image.fromarray(column[:, None].round().astype(np.uint8))
        self.image.paste(
            strip.resize((self.side, last - first), Image.Resampling.NEAREST), (0, first)
        )

    def polygon(self, points: Sequence[Point], colour: RGB, *, lit: bool = True) -> None:
        """A filled polygon."""
        fill = self.lit(colour) if lit else colour
        self._draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=fill)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: RGB, *, lit: bool = True
    ) -> None:
        """A filled ellipse about (x, y)."""
        n = self.side
        box = ((x - rx) * n, (y - ry) * n, (x + rx) * n, (y + ry) * n)
        self._draw.ellipse(box, fill=self.lit(colour) if lit else colour)

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, colour: RGB, *, lit: bool = True
    ) -> None:
        """A filled rectangle."""
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour, lit=lit)

    def stroke(
        self, points: Sequence[Point], width: float, colour: RGB, *, lit: bool = True
    ) -> None:
        """A line of a width given as a share of the picture."""
        self._draw.line(
            [(x * self.side, y * self.side) for x, y in points],
            fill=self.lit(colour) if lit else colour,
            width=max(1, round(width * self.side)),
            joint="curve",
        )

    def arc(self, x: float, y: float, radius: float, width: float, colour: RGB) -> None:
        """The upper half of a ring, as given (no light applied)."""
        n = self.side
        box = ((x - radius) * n, (y - radius) * n, (x + radius) * n, (y + radius) * n)
        self._draw.arc(box, 180, 360, fill=colour, width=max(1, round(width * n)))

    def picture(self) -> NDArray[np.float32]:
        """The finished picture, (size, size, 3) float32, 0 to 1."""
        small = self.image.reduce(self.oversample)
        return np.asarray(small, dtype=np.float32) / np.float32(255)
