"""Buckets: sizes of several aspect ratios with about the same number of pixels.

The method is NovelAI's (https://github.com/NovelAI/novelai-aspect-ratio-bucketing). `time_ids` are
the size and crop that condition SDXL (arXiv:2307.01952, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from diffgen.errors import UsageError
from diffgen.types import Size

TimeIds: TypeAlias = tuple[int, int, int, int, int, int]

MAX_ASPECT = 4.0  # the widest in SDXL's own table, 2048 x 512


@dataclass(frozen=True, slots=True)
class Placement:
    """The part of a picture that becomes a training picture of `target` size.

    `box` is (left, top, right, bottom) in pixels of the original, of the target's shape and as
    large as the original allows: a picture is enlarged only as far as it must be to fill the
    target, and nothing is cropped but along one side.
    """

    original: Size
    target: Size
    box: tuple[float, float, float, float]

    @property
    def scale(self) -> float:
        """Pixels of the original per pixel of the target; below 1 the picture is enlarged."""
        return (self.box[2] - self.box[0]) / self.target[0]

    def time_ids(self, *, flipped: bool) -> TimeIds:
        """Original height and width, crop top and left, target height and width, in pixels.

        The crop is measured in the resized picture, and in the mirrored one if `flipped`.
        """
        left = self.original[0] - self.box[2] if flipped else self.box[0]
        top = round(self.box[1] / self.scale)
        (width, height), (target_width, target_height) = self.original, self.target
        return (height, width, top, round(left / self.scale), target_height, target_width)


def place(original: Size, target: Size, *, x: float = 0.5, y: float = 0.5) -> Placement:
    """Crop a picture to a target's shape; x and y in [0, 1] place the crop within the rest."""
    scale = min(original[0] / target[0], original[1] / target[1])
    width, height = target[0] * scale, target[1] * scale
    left, top = x * (original[0] - width), y * (original[1] - height)
    right, bottom = min(left + width, original[0]), min(top + height, original[1])
    return Placement(original, target, (max(left, 0.0), max(top, 0.0), right, bottom))


def bucket_sizes(size: Size, step: int) -> tuple[Size, ...]:
    """All sizes in multiples of `step` with at most the pixels of `size`, none of them extendable.

    Sorted from tall to wide, aspect ratios from 1 / MAX_ASPECT to MAX_ASPECT. Raises UsageError
    if the step is larger than the pictures.
    """
    area = size[0] * size[1]
    found = set()
    for width in range(step, int(math.sqrt(area * MAX_ASPECT)) + 1, step):
        height = area // width // step * step
        if height and 1 / MAX_ASPECT <= width / height <= MAX_ASPECT:
            found |= {(width, height), (height, width)}
    if not found:
        raise UsageError(
            f"bucket_step {step} is too large for pictures of {size[0]} x {size[1]} pixels; "
            "use a smaller step or turn buckets off"
        )
    # Of two sizes that share a side, the larger one serves the same pictures better.
    best = {s for s in found if not any(_covers(other, s) for other in found if other != s)}
    return tuple(sorted(best, key=lambda s: (s[0] / s[1], s)))


def nearest_bucket(original: Size, sizes: Sequence[Size]) -> Size:
    """The size whose aspect ratio is nearest, as a ratio; the first of equals."""
    aspect = math.log(original[0] / original[1])
    return min(sizes, key=lambda s: abs(math.log(s[0] / s[1]) - aspect))


def unenlarged(original: Size, bucket: Size, step: int) -> Size:
    """The bucket, or the picture's own size in multiples of `step` where it would be enlarged.

    A picture smaller than a step, or longer than MAX_ASPECT, stays in its bucket.
    """
    width, height = (side // step * step for side in original)
    smaller = width * height < bucket[0] * bucket[1]
    fits = width and height and 1 / MAX_ASPECT <= width / height <= MAX_ASPECT
    return (width, height) if smaller and fits else bucket


def _covers(one: Size, other: Size) -> bool:
    return one[0] >= other[0] and one[1] >= other[1]
