"""The noise that a file keeps as a table of numbers: LDM's `alphas_cumprod`, SGM's `sigmas`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.types import NoiseConfig
from diffgen.weights.files import TensorInfo
from diffgen.weights.ldm.claims import Claim
from diffgen.weights.spread import numbers

logger = logging.getLogger("diffgen")

ALPHAS: Final = "alphas_cumprod"
SIGMAS: Final = "denoiser.sigmas"
LEAST: Final = 100  # entries; the real ones have 1000
PRECISE: Final = ("F32", "F64")
BETAS: Final = (1e-8, 0.9999)
# bfloat16 keeps two digits; where the last entry should be 0, programs write up to 5e-8.
CLOSE: Final[Mapping[str, float]] = {"rel_tol": 2e-2, "abs_tol": 1e-5}
KNOWN: Final[tuple[Mapping[str, Any], ...]] = ({}, {"zero_snr": True})


def table_claims(infos: Mapping[str, TensorInfo]) -> Iterator[Claim]:
    """What a file's table says, where that is other noise than Stable Diffusion's.

    Programs that ignore it (ComfyUI, diffusers) draw such a model wrong. Raises WeightsError.
    """
    for key in (ALPHAS, SIGMAS):
        if key in infos:
            values = _said_by(infos[key], of_sigmas=key == SIGMAS)
            if values:
                yield Claim(f"the tensor {key}", values)


def _said_by(info: TensorInfo, *, of_sigmas: bool) -> Mapping[str, Any]:
    found = numbers(info)
    alphas = [1.0 / (1.0 + s * s) for s in found] if of_sigmas else found
    falling = all(1.0 >= a >= b >= 0.0 for a, b in pairwise(alphas)) and alphas[0] > alphas[-1]
    if len(alphas) < LEAST or not falling:
        return {}  # a sampler's few steps, or zeros
    for values in KNOWN:
        if _is_like(alphas, values):
            return values
    betas = [1.0 - b / a for a, b in pairwise([1.0, *alphas])]
    if info.dtype in PRECISE and all(BETAS[0] <= beta <= BETAS[1] for beta in betas):
        return {"betas": tuple(betas), "num_train_timesteps": len(betas)}
    logger.warning(
        "%s: %s is another table of noise than Stable Diffusion's, in numbers too coarse to use",
        *(info.file, info.key),
    )
    return {}


def _is_like(alphas: list[float], values: Mapping[str, Any]) -> bool:
    config = NoiseConfig(num_train_timesteps=len(alphas), **values)
    table = NoiseSchedule.from_config(config).alphas_cumprod
    return all(math.isclose(a, b, **CLOSE) for a, b in zip(alphas, table, strict=True))
