"""How programs spell what a model predicts, yes and no, and numbers."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from diffgen.errors import UnsupportedCheckpoint, shown
from diffgen.types import Prediction

logger = logging.getLogger("diffgen")

Parser: TypeAlias = Callable[[object], Any]
PREDICTIONS: Mapping[Prediction, tuple[str, ...]] = {
    "eps": ("eps", "epsilon", "noise"),
    "v": ("v", "velocity"),
    "sample": ("sample", "x0", "x_start", "start_x", "xstart"),
    "flow": ("flow", "flow_matching", "rectified_flow", "rf"),
    "edm": ("edm",),
    "edm_v": ("edm_v",),
}
BY_SPELLING = {spelling: kind for kind, names in PREDICTIONS.items() for spelling in names}
V_FLAGS = ("v_parameterization", "v_pred", "v_prediction", "vpred")
ZERO_SNR = (
    "zero_snr",
    "ztsnr",
    "zsnr",
    "use_ztsnr",
    "use_zsnr",
    "zero_terminal_snr",
    "use_zero_terminal_snr",
    "enforce_zero_terminal_snr",
    "rescale_betas_zero_snr",
    "rescale_zero_terminal_snr",
)
TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
NOTHING = ("", "none", "null", "~", "unknown")
OPTIONS = {
    "prediction": "; say what it predicts with --prediction",
    "zero_snr": "; say it with --zero-snr or --no-zero-snr",
    "shift": "; say it with --shift",
}
ONLY_RECOMMENDED = ("clip_skip",)


def parsed(where: str, name: str, parse: Parser, value: object, asked: Collection[str]) -> Any:
    """What a text says of the field `name`, None where it says nothing or the user says it.

    Raises UnsupportedCheckpoint for what changes the picture and cannot be read.
    """
    if value is None or name in asked or str(value).strip().lower() in NOTHING:
        return None
    try:
        return parse(value)
    except (KeyError, TypeError, ValueError, OverflowError):
        problem = f"{where} is {shown(value)}, which is not known"
    if name not in ONLY_RECOMMENDED:
        raise UnsupportedCheckpoint(problem + OPTIONS.get(name, ""))
    logger.warning("%s and left out", problem)
    return None


def as_prediction(value: object) -> Prediction:
    """Raises KeyError for a kind that is none of ours."""
    name = re.sub(r"[\s-]+", "_", str(value).strip().lower())
    return BY_SPELLING[re.sub(r"(?<=.)_?pred(iction)?$", "", name)]


def as_truth(value: object) -> bool:
    """Raises KeyError."""
    return TRUTH[str(value).strip().lower()]


def as_v(value: object) -> Prediction:
    """What a flag of v-prediction says. Raises KeyError."""
    return "v" if as_truth(value) else "eps"


def as_number(value: object) -> float:
    """Raises ValueError."""
    return float(str(value))


def as_whole(value: object) -> int:
    """A whole number from 1 on. Raises ValueError."""
    number = float(str(value))
    if number < 1 or number != int(number):
        raise ValueError
    return int(number)


def as_clip_skip(value: object) -> int | None:
    """A layer from the end, which some write as -2, others as 2; 0 is none. Raises ValueError."""
    number = str(value).strip().removeprefix("-")
    return as_whole(number) if float(number) else None
