"""Frames between two prompts: their requests, and the animation of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffgen.engine.encoding import encode_frames
from diffgen.engine.output import Noted, OutputStyle, PictureOutput
from diffgen.errors import UsageError
from diffgen.settings.prompting import Interpolating, Reading
from diffgen.types import PictureFormat

if TYPE_CHECKING:
    from PIL import Image

ANIMATIONS = (".gif", ".webp")
NAMES = "{prompt:40}-{seed}-{line:03}.{ext}"  # of frames in a folder, so that they sort


class Animation(PictureOutput):
    """Collects the frames of one animation, and writes it after the last one."""

    def __init__(self, target: str, *, frames: int, style: OutputStyle) -> None:
        """Raises UsageError and OutputError as its parent does."""
        super().__init__(target, pictures=1, style=style)
        self._count = frames
        self._frames: list[tuple[Image.Image, Mapping[str, Any]]] = []

    def save(
        self,
        image: Image.Image,
        record: Mapping[str, Any],
        *,
        line: int = 1,
        noted: Noted | None = None,
    ) -> Path | None:
        """Add a frame; returns the animation's path after the last one, else None."""
        self._frames.append((image, record))
        if len(self._frames) < self._count:
            return None
        path = self.name(record, line=line)
        images, records = zip(*self._frames, strict=True)
        form = path.suffix.lower().lstrip(".")
        style: dict[str, Any] = {
            "form": form,
            "quality": self._style.quality,
            "metadata": self._style.metadata,
        }
        return self._put(encode_frames(images, _record_of_all(records), **style), path, noted)

    def _form_of_file(self) -> PictureFormat:
        asked, gif = self._style, self._file is not None and self._file.suffix.lower() == ".gif"
        if asked.form not in (None, "webp") or (gif and (asked.form or asked.quality)):
            raise UsageError("an animation is a .gif, which has no --quality, or a .webp file")
        return "webp"


def is_animation(target: str | None, frames: int) -> bool:
    """Whether an output is one file for all frames."""
    if frames < 2 or not target or PictureOutput.holds_many(target):
        return False
    return Path(target).suffix.lower() in ANIMATIONS


def check_alone(
    way: Interpolating, prompts: Sequence[str], reading: Reading, base: Mapping[str, Any]
) -> None:
    """Raise UsageError for settings that contradict frames between two prompts."""
    if way.interpolate is None:
        return
    others = {
        "a prompt": bool(prompts),
        "--prompts": reading.prompt_file,
        "--from": reading.from_picture,
        "--towards": "towards" in base,
        "--all-combinations": reading.all_combinations,
    }
    if found := [name for name, given in others.items() if given]:
        raise UsageError(f"--interpolate has both prompts in it; leave out {found[0]}")


def each_frame(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The frames of a replayed animation; another picture is one frame."""
    shares = settings.get("towards")
    if not isinstance(shares, list):
        return [dict(settings)]
    return [{**settings, "towards": share} for share in shares]


def _record_of_all(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first frame's record, with the share of each frame."""
    return {**records[0], "towards": [record["towards"] for record in records]}
