"""The vocabulary of the storybook world: colours, times, places, sizes, and how they are said."""

from dataclasses import dataclass
from typing import Final

RGB = tuple[int, int, int]

COLOURS: Final[dict[str, RGB]] = {
    "red": (222, 52, 44),
    "orange": (246, 134, 30),
    "yellow": (252, 208, 48),
    "green": (62, 166, 72),
    "turquoise": (44, 190, 186),
    "blue": (48, 112, 220),
    "purple": (136, 74, 190),
    "pink": (248, 138, 186),
    "brown": (134, 84, 52),
    "white": (244, 244, 246),
    "black": (48, 46, 54),
}

TIMES: Final[dict[str, tuple[str, ...]]] = {
    "day": ("on a sunny day", "by day", "in the sunshine", "in daylight"),
    "dawn": ("at dawn", "at sunrise", "early in the morning"),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "night": ("at night", "under the stars", "on a starry night"),
    "storm": ("in a storm", "on a stormy day", "in a thunderstorm"),
    "rain": ("in the rain", "on a rainy day"),
    "fog": ("in the fog", "on a foggy day", "in the mist"),
    "snowfall": ("while it is snowing", "in falling snow"),
    "rainbow": ("under a rainbow", "with a rainbow"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """How a place is said: `land` for what stands on it, `air` for what is above it.

    `water` is the phrase for what floats or swims there, empty where there is no water.
    """

    land: tuple[str, ...]
    air: tuple[str, ...]
    water: tuple[str, ...] = ()


PLACES: Final[dict[str, Place]] = {
    "field": Place(("in a green field", "in a meadow", "on the grass"), ("over a green field",)),
    "snow": Place(("in the snow", "on a snowy plain"), ("over the snow",)),
    "desert": Place(("in the desert", "on the desert sand"), ("over the desert",)),
    "beach": Place(("on the beach", "on a sandy beach"), ("over the beach",)),
    "sea": Place(
        ("on an island in the sea", "by the sea"), ("over the sea",), ("on the sea", "at sea")
    ),
    "road": Place(("on a road", "on the road"), ("over a road",)),
    "hills": Place(("in the hills", "among green hills"), ("over the hills",)),
    "forest": Place(("in the forest", "in the woods"), ("over the forest",)),
    "city": Place(("in the city", "in a city street"), ("over the city",)),
    "mountains": Place(("in the mountains", "below snowy mountains"), ("over the mountains",)),
    "lake": Place(("by a lake", "beside the lake"), ("over a lake",), ("on a lake", "on the lake")),
}

POSITIONS: Final[dict[str, tuple[str, ...]]] = {
    "left": ("on the left", "at the left"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "at the right"),
}

SIZES: Final[dict[str, tuple[str, ...]]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("",),
    "big": ("big", "large", "huge"),
}

RELATIONS: Final[dict[str, tuple[str, ...]]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "under": ("under", "below"),
    "behind": ("behind",),
    "in front": ("in front of",),
}

STYLES: Final[dict[str, tuple[str, ...]]] = {
    "flat": ("",),
    "sticker": ("a sticker of", "a paper cutout of"),
    "ink": ("an ink drawing of", "a comic drawing of"),
}

COUNT_WORDS: Final = ("no", "one", "two", "three")
MEDIA: Final = (
    "a picture of",
    "a drawing of",
    "an illustration of",
    "a photograph of",
    "a picture book scene of",
)
