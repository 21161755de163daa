"""SVG drawings: our own and the fetched emoji artwork, recoloured and rendered to pixels."""

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from PIL import Image

from scripts.storybook.objects import HERE, Kind
from scripts.storybook.oklch import from_oklch, hue_distance, to_oklch
from scripts.storybook.words import COLOURS, RGB

PACKAGES: Final = {
    "noto": "@iconify-json/noto@1.2.9",
    "fluent": "@iconify-json/fluent-emoji-flat@1.2.6",
}
MASTER: Final = 384  # pixels a drawing is rendered at, before it is scaled down
HUE_WINDOW: Final = 50.0  # degrees around the body's hue that are the body's
_HEX: Final = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


def default_cache() -> Path:
    """Where fetched artwork is kept, outside the repository."""
    return Path.home() / ".cache" / "diffgen-storybook"


def fetch(cache_dir: Path) -> None:
    """Fetch the emoji packages with npm, unless they are there already."""
    for source, package in PACKAGES.items():
        target = cache_dir / f"{source}.json"
        if target.exists():
            continue
        cache_dir.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", package, "--silent"],
            cwd=cache_dir,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(cache_dir / packed.stdout.split()[-1]) as archive:
            member = archive.extractfile("package/icons.json")
            if member is None:
                raise FileNotFoundError(f"{package} holds no package/icons.json")
            partial = target.with_suffix(".part")
            partial.write_bytes(member.read())
        partial.replace(target)


@cache
def _icons(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run draw.py once, or draw with --own-art")
    icons: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return icons


def svg_source(kind: Kind, cache_dir: Path) -> str:
    """The drawing of a kind as SVG text."""
    source, name = kind.art.split(":")
    if source == "own":
        return (HERE / "art" / f"{name}.svg").read_text(encoding="utf-8")
    icons = _icons(cache_dir / f"{source}.json")
    icon = icons["icons"][name]
    width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )


def _rgb(digits: str) -> RGB:
    wide = digits if len(digits) == 6 else "".join(2 * d for d in digits)
    return int(wide[0:2], 16), int(wide[2:4], 16), int(wide[4:6], 16)


def _repaint(body: RGB, target: RGB) -> Callable[[re.Match[str]], str]:
    """Maps fills of the body's hue to the target's, keeping lightness steps (the shading)."""
    body_l, body_c, body_h = to_oklch(body)
    goal_l, goal_c, goal_h = to_oklch(target)

    def swap(match: re.Match[str]) -> str:
        lightness, chroma, hue = to_oklch(_rgb(match[1]))
        if chroma < 0.05 or hue_distance(hue, body_h) > HUE_WINDOW:
            return match[0]
        step = (lightness - body_l) * (0.75 if goal_c > 0.02 else 0.55)
        new = from_oklch(goal_l + step, goal_c * min(chroma / body_c, 1.15), goal_h)
        return "#{:02x}{:02x}{:02x}".format(*new)

    return swap


def recolour(svg: str, *, body: str, colour: str) -> str:
    """The drawing with the fills of hue `body` (hex) turned into a named colour."""
    return _HEX.sub(_repaint(_rgb(body), COLOURS[colour]), svg)


def render(kind: Kind, colour: str | None, cache_dir: Path) -> Image.Image:
    """The drawing in a colour as RGBA, cropped to what is visible, its longer side near MASTER."""
    import resvg_py

    svg = svg_source(kind, cache_dir)
    if colour is not None:
        svg = recolour(svg, body=kind.body, colour=colour)
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=MASTER, height=MASTER))
    image = Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")
    return image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
