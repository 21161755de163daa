"""A model's noise from claims of its files and its user: prediction, range, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffgen.types import NoiseConfig, Prediction, SamplerName, SpacingName

# The makers' sampling of models of other noise than that of betas.
OWN_WAY: Mapping[Prediction, tuple[SamplerName, SpacingName]] = {
    "flow": ("euler", "linspace"),
    "edm": ("dpmpp_2m", "karras"),
    "edm_v": ("euler", "karras"),
}
TOLD = (
    "prediction",
    "zero_snr",
    "shift",
    "beta_schedule",
    "betas",
    "beta_start",
    "beta_end",
    "num_train_timesteps",
    "sigma_min",
    "sigma_max",
    "sigma_data",
)


def with_noise(schedule: NoiseConfig, told: Mapping[str, Any]) -> NoiseConfig:
    """The schedule with the fields in `told`, and matching sampling.

    Models with zero terminal SNR start at the last timestep, which leading steps leave out
    (arXiv:2305.08891, section 3.3).
    """
    new = replace(schedule, **{name: told[name] for name in TOLD if name in told})
    if new.prediction != schedule.prediction and new.prediction in OWN_WAY:
        sampler, spacing = OWN_WAY[new.prediction]
        return replace(new, sampler=sampler, spacing=spacing, unsupported=None)
    if new.zero_snr and not schedule.zero_snr and new.spacing == "leading":
        return replace(new, spacing="trailing")
    return new
