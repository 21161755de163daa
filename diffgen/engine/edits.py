"""The pictures that a run begins with, prepared for one model and size.

Edits that cannot be made are refused before a model loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops
from PIL.Image import Resampling

from diffgen.engine.pictures import STDIN, Source, pictures_in
from diffgen.errors import UsageError
from diffgen.files import expanded
from diffgen.models.config import ModelConfig
from diffgen.pictures.fitting import (
    Box,
    as_mask,
    beyond,
    crop_around,
    extended,
    fitted,
    opaque,
    size_for,
    size_for_crop,
    softened,
    transparency,
)
from diffgen.settings.editing import Editing
from diffgen.types import Size

HALF = 128  # of the levels of a mask
SEAM_BLUR = 8.0  # drawn pixels, where outpainting is given none; A1111's "Outpainting mk2" has it
SEAM_LIMIT = 1 / 16  # of the picture's shorter side, of which the middle half stays untouched
SEAM_REACH = 4  # pixels of the picture that fade, in times of the blur: two deviations each way


@dataclass(frozen=True, slots=True)
class Edit:
    """A picture to begin with, at the drawn size, and how the result is blended back.

    `init` is RGB, `mask` in mode L, white where to repaint. `notes` describe automatic choices.
    `blur` softens the mask's edge, in pixels of the picture.
    """

    source: Source
    init: Image.Image
    mask: Image.Image | None = None
    mask_source: Source | None = None
    place: tuple[Image.Image, Image.Image, Box] | None = None  # canvas, its mask, what was drawn
    notes: tuple[str, ...] = ()
    blur: float = 0.0

    @classmethod
    def make(
        cls, settings: Editing, path: str, size: tuple[int | None, int | None], config: ModelConfig
    ) -> Edit:
        """Read a picture and its mask, and fit them to a size; None means the picture's own.

        Raises UsageError or PictureError for unreadable files and for contradicting settings.
        """
        source = Source.read(path)
        grid = {"factor": config.factor, "native": config.native_size}
        blur = _blur(settings, source.image.size, size, grid)
        masked = _Masked.of(settings, source, blur)
        if masked.mask is None or settings.mask_crop is None:
            drawn = size_for(masked.image.size, *size, **grid)
            mask = masked.mask and fitted(masked.mask, drawn, settings.fit)
            init = fitted(masked.image, drawn, settings.fit)
            notes = (*masked.notes, *_resized(source, masked.image.size, drawn, settings))
            return cls(source, init, mask, masked.source, None, notes, blur)
        width, height = size
        aspect = width / height if width and height else None
        box = crop_around(masked.mask, settings.mask_crop, aspect)
        drawn = size_for_crop(box, width, height, **grid)
        init, mask = (fitted(p.crop(box), drawn, "stretch") for p in (masked.image, masked.mask))
        place = (masked.image, masked.mask, box)
        return cls(source, init, mask, masked.source, place, masked.notes, blur)

    @property
    def size(self) -> Size:
        """Width and height in pixels that are drawn."""
        return self.init.size

    @property
    def record(self) -> dict[str, object]:
        """Which files the picture came from, and its mask's blur, as plain values."""
        mask = self.mask_source and self.mask_source.sha256
        found: dict[str, object] = {"init_sha256": self.source.sha256, "mask_sha256": mask}
        return found if self.mask is None else found | {"mask_blur": self.blur}

    def finish(self, drawn: Image.Image) -> Image.Image:
        """The result where the mask is white, the original, to the bit, where it is black."""
        if self.mask is None:
            return drawn
        drawn = drawn.convert("RGB")
        if self.place is None:
            return Image.composite(drawn, self.init, self.mask)
        canvas, mask, box = self.place
        size = (box[2] - box[0], box[3] - box[1])
        part = drawn if drawn.size == size else drawn.resize(size, Resampling.LANCZOS)
        whole = canvas.copy()
        whole.paste(Image.composite(part, canvas.crop(box), mask.crop(box)), box[:2])
        return whole


class Edits(Sequence[Edit]):
    """An edit for each init picture; of many, each is read again when needed."""

    def __init__(
        self, settings: Editing, size: tuple[int | None, int | None], config: ModelConfig
    ) -> None:
        """Read all once, so that none fails in the middle of a run."""
        self._arguments = (settings, size, config)
        self.factor = config.factor
        self.paths = _paths(settings.init or "")
        self.contents: list[str] = []  # of each, a digest: files of a folder come and go
        for index in range(len(self.paths)):
            self._latest = (index, self._make(index))
            self.contents.append(" ".join(map(str, self._latest[1].record.values())))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Edit:  # type: ignore[override]  # no slices
        if self._latest[0] != index:
            self._latest = (index, self._make(index))
        return self._latest[1]

    def _make(self, index: int) -> Edit:
        settings, size, config = self._arguments
        return Edit.make(settings, self.paths[index], size, config)


@dataclass(frozen=True, slots=True)
class _Masked:
    """A picture, its canvas extended, and a mask of its size."""

    image: Image.Image
    mask: Image.Image | None
    source: Source | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, settings: Editing, source: Source, blur: float) -> _Masked:
        image, notes = source.image, _first_of(source)
        clear = transparency(image) if settings.mask is None else None
        mask_source = None
        mask: Image.Image | None = None
        if settings.mask is not None:
            mask_source = Source.read(settings.mask)
            mask = as_mask(mask_source.image)
            notes += _first_of(mask_source)
            if mask.size != image.size:
                notes.append(_other_size(mask_source, mask.size, source, image.size))
                mask = mask.resize(image.size, Resampling.BILINEAR)
        elif clear is not None:
            mask = clear
            notes.append(f"transparent parts of {_named(source)} are repainted")
        # The colours under transparent pixels also shape soft edges.
        picture = opaque(image) if clear is None else image.convert("RGB")
        picture, mask = _finished(settings, picture, mask, blur)
        if mask is not None and mask.getextrema() == (255, 255):
            notes.append(f"the mask is all white: nothing of {_named(source)} is kept")
        elif mask is not None and (level := int(mask.getextrema()[1])) < HALF:  # type: ignore[arg-type]
            notes.append(
                f"the mask has no more than {level} of 255: that little of what is painted shows"
            )
        return cls(picture, mask, mask_source, tuple(notes))


def _blur(
    settings: Editing, own: Size, size: tuple[int | None, int | None], grid: dict[str, int]
) -> float:
    """The blur of the mask, in pixels of the picture: as asked for, else none, or what hides the
    seams of an outpainted canvas at the size that is drawn.
    """
    if settings.mask_blur is not None or settings.outpaint is None:
        return settings.mask_blur or 0.0
    left, right, top, bottom = settings.outpaint
    canvas = (left + own[0] + right, top + own[1] + bottom)
    drawn = size_for(canvas, *size, **grid)
    scale = max(old / new for old, new in zip(canvas, drawn, strict=True))
    return min(SEAM_BLUR * scale, SEAM_LIMIT * min(own))


def _finished(
    settings: Editing, picture: Image.Image, mask: Image.Image | None, blur: float
) -> tuple[Image.Image, Image.Image | None]:
    """The mask inverted, blurred and grown with the canvas, as settings ask."""
    if settings.mask_invert:
        if mask is None:
            raise UsageError("--mask-invert turns a mask round; give one with --mask")
        mask = ImageChops.invert(mask)
    if mask is not None:
        mask = softened(mask, blur)
    if settings.outpaint:
        left, right, top, bottom = settings.outpaint
        new = beyond(picture.size, (left, top, right, bottom), round(SEAM_REACH * blur))
        if mask is not None:
            new = ImageChops.lighter(new, extended(mask, (left, top, right, bottom)))
        picture, mask = extended(picture, (left, top, right, bottom)), new
    if mask is None:
        if settings.mask_crop is not None:
            raise UsageError("--mask-crop paints a mask only; give one with --mask")
        return picture, None
    if not mask.getbbox():
        raise UsageError(
            "the mask is all black: nothing would be painted (white is; --mask-invert turns it round)"
        )
    return picture, mask


def _paths(init: str) -> list[str]:
    path = expanded(init)
    if init != STDIN and path.is_dir():
        return [str(each) for each in pictures_in(path)]
    return [init]


def _first_of(source: Source) -> list[str]:
    if source.frames == 1:
        return []
    return [f"{_named(source)} has {source.frames} pictures; the first is taken"]


def _named(source: Source) -> str:
    return Path(source.name).name


def _other_size(mask: Source, its: Size, init: Source, size: Size) -> str:
    return (
        f"the mask {_named(mask)} is {its[0]} x {its[1]}; stretched to the {size[0]} x {size[1]} "
        f"of {_named(init)}"
    )


def _resized(source: Source, own: Size, drawn: Size, settings: Editing) -> list[str]:
    if own == drawn:
        return []
    how = {"crop": "cropped", "pad": "padded", "stretch": "stretched"}[settings.fit]
    grown = " with what is added" if settings.outpaint else ""
    return [
        f"{_named(source)} is {own[0]} x {own[1]}{grown}; drawn at {drawn[0]} x {drawn[1]}, {how} where "
        "that has another shape (-W, -H and --fit choose)"
    ]
