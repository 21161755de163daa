"""What users may choose of pictures to begin with, of larger ones and of varied ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from diffgen.errors import UsageError
from diffgen.settings.grammar import (
    as_typed,
    parse_enlargement,
    parse_sides,
    parse_towards,
    parse_variation,
)
from diffgen.settings.setting import Group, Setting

Fit: TypeAlias = Literal["crop", "pad", "stretch"]
Axes: TypeAlias = Literal["x", "y", "xy"]
MAX_MARGIN = 65_536  # pixels


@dataclass(frozen=True, kw_only=True)
class Editing(Group):
    """Which picture to begin with, and which part of it to paint anew."""

    panel: ClassVar[str] = "Pictures in"

    init: Annotated[
        str | None,
        Setting(
            "-i --init",
            "A picture to begin with; a folder for each in it, - for stdin",
            "FILE|DIR",
            parse=as_typed,
            peers="init-img image input init-image img2img input-image init-images",
        ),
    ] = None
    strength: Annotated[
        float | None,
        Setting(
            "--strength",
            "How much of it to change: the share of steps run [default: 0.75, with a mask 1]",
            low=0,
            high=1,
            peers="denoising-strength denoise img2img-strength",
        ),
    ] = None
    fit: Annotated[
        Fit,
        Setting(
            "--fit",
            "How it fills another size: crop, pad or stretch [default: crop]",
            peers="resize-mode",
        ),
    ] = "crop"
    mask: Annotated[
        str | None,
        Setting(
            "--mask",
            "White where to paint anew [default: where the picture is transparent]",
            "FILE",
            parse=as_typed,
            peers="mask-image mask-img init-mask",
        ),
    ] = None
    mask_blur: Annotated[
        float | None,
        Setting(
            "--mask-blur",
            "Pixels over which its edge is softened [default: 0, with --outpaint 8]",
            "PX",
            low=0,
            high=1024,
        ),
    ] = None
    mask_invert: Annotated[
        bool, Setting("--mask-invert", "Paint black parts anew", peers="inpainting-mask-invert")
    ] = False
    mask_crop: Annotated[
        int | None,
        Setting(
            "--mask-crop",
            "Paint only the mask and PX pixels around it, enlarged to the model's size",
            "PX",
            low=0,
            high=MAX_MARGIN,
            peers="inpaint-full-res-padding padding-mask-crop only-masked-padding",
        ),
    ] = None
    outpaint: Annotated[
        tuple[int, ...] | None,
        Setting(
            "--outpaint",
            "Pixels to add around it, or L,R,T,B",
            "PX",
            parse=parse_sides,
            peers="outpainting",
        ),
    ] = None
    image_guidance: Annotated[
        float,
        Setting(
            "--image-guidance",
            "How closely models that follow instructions keep to the picture [default: 1.5]",
            low=0,
            peers="image-cfg-scale image-guidance-scale image-cfg",
        ),
    ] = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = ("strength", "mask", "outpaint", "mask_crop")
        given = [name for name in alone if getattr(self, name) is not None]
        if given and self.init is None:
            name = given[0].replace("_", "-")
            raise UsageError(f"--{name} is about a picture; give one with --init")
        if self.mask == "-" and self.init == "-":
            raise UsageError("--init - and --mask - both read stdin; give one of them as a file")


@dataclass(frozen=True, kw_only=True)
class Enlarging(Group):
    """A second pass at a larger size, and pictures too large for memory."""

    panel: ClassVar[str] = "Large pictures"

    hires: Annotated[
        str | None,
        Setting(
            "--hires",
            "Draw small, enlarge, and draw again: 2x or WxH",
            "2x|WxH",
            parse=parse_enlargement,
            peers="hires-fix hires-upscale hr-scale hires-scale enable-hr",
        ),
    ] = None
    hires_strength: Annotated[
        float,
        Setting(
            "--hires-strength",
            "How much the second pass changes [default: 0.4]",
            low=0,
            high=1,
            peers="hires-denoising-strength hr-denoising-strength",
        ),
    ] = 0.4
    hires_steps: Annotated[
        int | None,
        Setting(
            "--hires-steps",
            "Its steps, of which it runs that share [default: as the first]",
            "N",
            low=1,
            high=100_000,
            peers="hr-second-pass-steps",
        ),
    ] = None
    hires_upscaler: Annotated[
        str,
        Setting(
            "--hires-upscaler",
            "latent, lanczos, or the file of an upscaling model [default: lanczos]",
            "NAME|FILE",
            parse=as_typed,
            peers="hr-upscaler upscaler",
        ),
    ] = "lanczos"
    tile_vae: Annotated[
        bool,
        Setting(
            "--tile-vae",
            "Decode and encode in strips: less memory, same picture",
            peers="vae-tiling enable-vae-tiling tiled-vae vae-tile",
        ),
    ] = False

    def enlarged(self, width: int, height: int, factor: int) -> tuple[int, int]:
        """The size of the second pass, in multiples of a model's `factor`."""
        first, _, second = (self.hires or "1x").partition("x")
        if second:
            return int(first), int(second)
        sides = (max(1, round(float(first) * side / factor)) * factor for side in (width, height))
        return next(sides), next(sides)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hires is None and self.hires_steps is not None:
            raise UsageError("--hires-steps is about a second pass; ask for one with --hires 2x")


@dataclass(frozen=True, kw_only=True)
class Varying(Group):
    """Pictures near another, and ones that continue across their edges."""

    panel: ClassVar[str] = "Sampling"

    variation: Annotated[
        str | None,
        Setting(
            "--variation",
            "Turn the noise towards another seed's by a share from 0 to 1",
            "SEED:SHARE",
            parse=parse_variation,
            peers="subseed variation-seed",
        ),
    ] = None
    towards: Annotated[
        str | None,
        Setting(
            "--towards",
            "Draw between the prompt and another: a share of the way, from 0 to 1",
            "TEXT:SHARE",
            parse=parse_towards,
        ),
    ] = None
    seamless: Annotated[
        Axes | None,
        Setting(
            "--seamless",
            "Let pictures continue across their edges: x, y or xy",
            peers="tiling tileable tile",
        ),
    ] = None

    @property
    def between(self) -> tuple[str, float] | None:
        """The other prompt, and the share of the way to it."""
        if self.towards is None:
            return None
        text, _, share = self.towards.rpartition(":")
        return text, float(share)

    @property
    def turned(self) -> tuple[int, float] | None:
        """The other seed, and the share of the way to its noise."""
        if self.variation is None:
            return None
        seed, _, share = self.variation.partition(":")
        return int(seed), float(share)


@dataclass(frozen=True, kw_only=True)
class Refining(Group):
    """A second model for the end of a run."""

    panel: ClassVar[str] = "Model"

    refiner: Annotated[
        str | None,
        Setting(
            "--refiner",
            "A model of the same latents that takes over near the end",
            "NAME|PATH",
            parse=as_typed,
            peers="refiner-model refiner-checkpoint",
        ),
    ] = None
    refiner_start: Annotated[
        float,
        Setting(
            "--refiner-start",
            "Where it takes over, as a share of the noise schedule [default: 0.8]",
            low=0.01,
            high=0.99,
            peers="refiner-switch-at denoising-end high-noise-frac",
        ),
    ] = 0.8
