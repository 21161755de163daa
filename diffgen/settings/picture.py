"""How large pictures are, how many, and from which seed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffgen.settings.grammar import parse_point, parse_size
from diffgen.settings.setting import Group, Setting

MAX_COUNT = 1_000_000_000
MAX_BATCH = 4096
MAX_SIDE = 65_536  # pixels
MAX_SEED = 2**64 - 1  # what torch.Generator takes


@dataclass(frozen=True, kw_only=True)
class Size(Group):
    """How large, in pixels."""

    panel: ClassVar[str] = "Size and number"

    width: Annotated[
        int | None,
        Setting(
            "-W --width",
            "In pixels [default: the model's]",
            low=1,
            high=MAX_SIDE,
            peers="w image-width",
        ),
    ] = None
    height: Annotated[
        int | None,
        Setting(
            "-H --height",
            "In pixels [default: the model's]",
            low=1,
            high=MAX_SIDE,
            peers="h image-height",
        ),
    ] = None
    original_size: Annotated[
        tuple[int, int] | None,
        Setting(
            "--original-size",
            "What SDXL is told of the picture's size before it was cropped [default: its size]",
            "WxH",
            parse=parse_size,
        ),
    ] = None
    crop: Annotated[
        tuple[int, int] | None,
        Setting(
            "--crop",
            "What SDXL is told of where the crop begins, from left and top [default: 0,0]",
            "X,Y",
            parse=parse_point,
            peers="crops-coords-top-left",
        ),
    ] = None
    target_size: Annotated[
        tuple[int, int] | None,
        Setting(
            "--target-size",
            "What SDXL is told of the size it is meant for [default: its size]",
            "WxH",
            parse=parse_size,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Number(Group):
    """How many pictures of a prompt, and from which seed on."""

    panel: ClassVar[str] = "Size and number"

    seed: Annotated[
        int, Setting("--seed", "Seed of the first picture [default: random, as -1]", "N")
    ] = 0
    count: Annotated[
        int,
        Setting(
            "-c --count",
            "Pictures per prompt: seeds S, S+1, ... [default: 1]",
            "N",
            low=1,
            high=MAX_COUNT,
            peers="n-iter n-samples num-images num-images-per-prompt batch-count num-samples "
            "images number repeat images-per-prompt",
        ),
    ] = 1
    batch_size: Annotated[
        int,
        Setting(
            "--batch-size",
            "Pictures made together; never changes them [default: 1]",
            "N",
            low=1,
            high=MAX_BATCH,
            peers="b bs batch",
        ),
    ] = 1
