"""Convert opened pictures to upright 8-bit RGB."""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from PIL.Image import Transpose

from diffgen.pictures.opening import WIDE, DamagedPicture, orientation
from diffgen.types import Size

UPRIGHT = {  # by EXIF's number; undoes what a camera held sideways did
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
MAX_16_BITS = 65_535
SIDEWAYS = frozenset({5, 6, 7, 8})


def upright_size(image: Image.Image) -> Size:
    """Width and height in pixels after rotation, without decoding."""
    width, height = image.size
    return (height, width) if orientation(image) in SIDEWAYS else (width, height)


def turned(image: Image.Image) -> Image.Image:
    """The picture rotated by its tags; not for one that was rotated before."""
    turn = UPRIGHT.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit grey scaled down, transparency laid on white."""
    image = in_8_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def in_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled down to 8, which Pillow's own conversion would clip.

    Raises DamagedPicture where there are more bits.
    """
    if not image.mode.startswith("I"):
        return image
    if image.mode == "I":
        low, high = image.getextrema()
        if not 0 <= low <= high <= MAX_16_BITS:  # type: ignore[operator]  # one band
            raise DamagedPicture("32-bit pixels", WIDE)
    return image.convert("I").point(lambda level: level * (1 / 256) + 0).convert("L")


def in_srgb(image: Image.Image) -> Image.Image:
    """Convert colours from the file's embedded profile to sRGB.

    An invalid profile is ignored, as in browsers.
    """
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return image  # as it is, to the bit
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, own, srgb, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
