"""Objects as small premultiplied pictures, lit, styled and cached at the sizes they are drawn."""

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from scripts.storybook.artwork import render
from scripts.storybook.objects import all_kinds

Pixels = NDArray[np.float32]

STYLE_EDGE: Final[dict[str, tuple[int, int, int]]] = {
    "sticker": (255, 255, 255),
    "ink": (38, 32, 44),
}
OBJECT_LIGHT: Final[dict[str, tuple[float, float, float]]] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.0, 0.94, 0.94),
    "sunset": (1.0, 0.91, 0.85),
    "night": (0.72, 0.76, 0.92),
    "storm": (0.78, 0.80, 0.85),
    "rain": (0.88, 0.90, 0.95),
    "fog": (0.97, 0.97, 0.97),
    "snowfall": (0.94, 0.96, 1.0),
    "rainbow": (1.0, 1.0, 1.0),
}


def _edged(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The picture with an outline of about 2.5 % of its size around it."""
    width = max(image.size) // 40
    framed = Image.new("RGBA", (image.width + 4 * width, image.height + 4 * width))
    framed.paste(image, (2 * width, 2 * width))
    grown = framed.getchannel("A").filter(ImageFilter.MaxFilter(2 * width + 1))
    edge = Image.new("RGBA", framed.size, (*colour, 0))
    edge.putalpha(grown.filter(ImageFilter.GaussianBlur(width / 3)))
    return Image.alpha_composite(edge, framed)


@lru_cache(maxsize=1024)
def _master(kind: str, colour: str | None, style: str, cache_dir: Path) -> Image.Image:
    """The full-size drawing, premultiplied so that scaling mixes no invisible colours in."""
    image = render(all_kinds()[kind], colour, cache_dir)
    if style in STYLE_EDGE:
        image = _edged(image, STYLE_EDGE[style])
    return image.convert("RGBa")


@lru_cache(maxsize=16384)
def sprite(
    kind: str, colour: str | None, style: str, time: str, side: int, cache_dir: Path
) -> Pixels:
    """An object with its longer side `side` pixels: (h, w, 4) premultiplied float32, 0 to 1."""
    master = _master(kind, colour, style, cache_dir)
    scale = side / max(master.size)
    size = (max(1, round(master.width * scale)), max(1, round(master.height * scale)))
    pixels = np.asarray(
        master.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.float32
    )
    light = np.array([*OBJECT_LIGHT[time], 1.0], dtype=np.float32)
    return np.ascontiguousarray(pixels * (light / 255))


@lru_cache(maxsize=1024)
def soft_ellipse(width: int, height: int, rgb: tuple[int, int, int], strength: float) -> Pixels:
    """A blurred ellipse, (height, width, 4) premultiplied: shadows, ripples and glows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    across = (2 * x + 1) / width - 1
    down = (2 * y + 1) / height - 1
    alpha = strength * np.clip(1.6 * (1 - np.hypot(across, down)), 0, 1)
    colour = np.array([*rgb, 255], dtype=np.float32) / 255
    return np.asarray(alpha[..., None] * colour, dtype=np.float32)


def blend(picture: Pixels, layer: Pixels, *, left: int, top: int) -> None:
    """Lay a premultiplied layer over (H, W, 3) in place; what falls outside is cut off."""
    height, width = picture.shape[:2]
    y0, y1 = max(top, 0), min(top + layer.shape[0], height)
    x0, x1 = max(left, 0), min(left + layer.shape[1], width)
    if y0 >= y1 or x0 >= x1:
        return
    part = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    region = picture[y0:y1, x0:x1]
    region *= 1 - part[..., 3:]
    region += part[..., :3]
