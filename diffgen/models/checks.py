"""Check configs before networks are built from them.

Every check takes a function that names fields as their file does, and raises ConfigError with the
name of a bad one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import ConfigError
from diffgen.limits import Naming, check_ranges
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import NoiseConfig

MAX_LEVELS = 10  # resolutions, each half the previous one
MAX_TRANSFORMERS = 1000  # layers in a U-Net; SDXL has 70
MAX_SIDE = 1 << 14  # pixels
SIZES_AND_CROPS = 6  # the number of SDXL's time ids
SIZES_AND_SCORE = 5  # the number of its refiner's
LARGEST_SIGMA = 1e10  # a larger sigma leaves no signal in float32


def check_text(config: ClipTextConfig, named: Naming) -> None:
    """Check a text encoder."""
    check_ranges(config, named)
    if config.width % config.num_heads:
        raise ConfigError(
            f"{named('num_heads')} is {config.num_heads}, which does not divide "
            f"the width, {config.width}"
        )


def check_unet(config: UNetConfig, named: Naming) -> None:
    """Check a U-Net."""
    check_ranges(config, named)
    _check_channels(config.channels, config.norm_groups, named)
    levels = len(config.channels)
    for name in ("blocks", "depth", "up_depth", "num_heads"):
        values = getattr(config, name)
        if values is not None and len(values) != levels:
            raise ConfigError(
                f"{named(name)} has {len(values)} entries for the {levels} of channels"
            )
    _check_depths(config, named)
    _check_heads(config, named)
    transformers = _transformers(config)
    if transformers > MAX_TRANSFORMERS:
        raise ConfigError(
            f"{named('depth')} and the blocks per level make {transformers} transformer layers; "
            f"at most {MAX_TRANSFORMERS} are read"
        )
    for name in ("time_ids_dim", "guidance_dim"):
        _check_even(named(name), getattr(config, name) or 0)
    _check_even(f"the first of {named('channels')}", config.channels[0])
    if config.channels[0] / 2 <= config.freq_shift:
        raise ConfigError(f"{named('channels')} starts with too few to embed a time in")


def _check_even(name: str, number: int) -> None:
    if number % 2:  # half of it sines, half cosines
        raise ConfigError(f"{name} must be an even number, not {number}")


def _check_channels(channels: tuple[int, ...], groups: int, named: Naming) -> None:
    if not 1 <= len(channels) <= MAX_LEVELS:
        raise ConfigError(
            f"{named('channels')} must have from 1 to {MAX_LEVELS} entries, not {len(channels)}"
        )
    for number in channels:
        if number % groups:
            raise ConfigError(
                f"{named('norm_groups')} is {groups}, which does not divide {number} channels"
            )


def _check_depths(config: UNetConfig, named: Naming) -> None:
    """Levels that list depths need one for each block, either all 0 or none."""
    for level, blocks in enumerate(config.blocks):
        ways = {"depth": (config.down_depths(level), blocks)}
        ways["up_depth"] = (config.up_depths(level), blocks + 1)
        for name, (depths, count) in ways.items():
            if len(depths) != count:
                raise ConfigError(
                    f"{named(name)} has {len(depths)} entries for {count} blocks of one level"
                )
            if 0 in depths and any(depths):
                raise ConfigError(f"{named(name)} has 0 beside others at one level")


def _check_heads(config: UNetConfig, named: Naming) -> None:
    levels = range(len(config.channels))
    depths = [max(*config.down_depths(n), *config.up_depths(n)) for n in levels]
    depths[-1] = max(depths[-1], config.mid_depth or 0)
    for channels, heads, depth in zip(config.channels, config.num_heads, depths, strict=True):
        if depth and channels % heads:
            raise ConfigError(
                f"{named('num_heads')} is {heads}, which does not divide {channels} channels"
            )


def _transformers(config: UNetConfig) -> int:
    levels = range(len(config.channels))
    both = sum(sum(config.down_depths(n)) + sum(config.up_depths(n)) for n in levels)
    return both + (config.mid_depth or 0)


def check_vae(config: VaeConfig, named: Naming) -> None:
    """Check an autoencoder."""
    check_ranges(config, named)
    _check_channels(config.channels, config.norm_groups, named)
    for name in ("latents_mean", "latents_std"):
        values = getattr(config, name)
        if values is not None and len(values) != config.latent_channels:
            raise ConfigError(
                f"{named(name)} has {len(values)} entries for {config.latent_channels} channels "
                "of latents"
            )


def check_schedule(config: NoiseConfig, named: Naming) -> None:
    """Check that a noise schedule has rising, finite noise levels."""
    check_ranges(config, named)
    steps = config.num_train_timesteps
    if config.betas is not None and len(config.betas) != steps:
        raise ConfigError(
            f"{named('betas')} has {len(config.betas)} entries for the {steps} of "
            "num_train_timesteps"
        )
    if config.steps_offset >= steps:
        raise ConfigError(f"{named('steps_offset')} must be below {steps}, the number of times")
    try:
        sigmas = NoiseSchedule.from_config(config).sigmas
    except ZeroDivisionError:  # the product of 1 - beta has underflowed to 0
        sigmas = (math.inf,)
    if sigmas[-1] > LARGEST_SIGMA or not all(a < b for a, b in pairwise(sigmas)):
        name = named("beta_end" if config.betas is None else "betas")
        raise ConfigError(f"{name} leaves nothing of a picture long before step {steps}")


def check_networks(
    unet: UNetConfig | None,
    vae: VaeConfig | None,
    text: Sequence[ClipTextConfig],
    schedule: NoiseConfig | None,
    named: Naming,
) -> None:
    """Check each part that is present; fields are named "unet.channels" and the like."""
    for encoder in text:
        check_text(encoder, lambda name: named(f"text.{name}"))
    if unet:
        check_unet(unet, lambda name: named(f"unet.{name}"))
    if vae:
        check_vae(vae, lambda name: named(f"vae.{name}"))
    if schedule:
        check_schedule(schedule, lambda name: named(f"schedule.{name}"))


def check_model(config: ModelConfig, where: str) -> None:
    """Check that the parts of a model, each valid by itself, fit together."""
    unet, text = config.unet, config.text
    width = sum(encoder.width for encoder in text)
    if unet.context_dim != width:
        raise _misfit(where, f"U-Net reads text of width {unet.context_dim}", f"encoders {width}")
    if len({encoder.max_tokens for encoder in text}) > 1:
        lengths = " and ".join(str(encoder.max_tokens) for encoder in text)
        raise ConfigError(f"{where}: its text encoders read prompts of different length, {lengths}")
    if unet.added_dim is not None:
        pooled = text[-1].projection or text[-1].width
        added = pooled + SIZES_AND_CROPS * (unet.time_ids_dim or 0)
        refined = pooled + SIZES_AND_SCORE * (unet.time_ids_dim or 0)
        if unet.added_dim not in (added, refined):
            raise _misfit(where, f"U-Net is told {unet.added_dim} numbers", f"encoders {added}")
    latent = config.vae.latent_channels if config.vae else 3
    if unet.in_channels < latent or unet.out_channels not in (latent, 2 * latent):
        channels = f"{unet.in_channels} channels and gives {unet.out_channels}"
        raise _misfit(where, f"U-Net takes {channels}", f"pictures {latent}")
    if config.native_size > MAX_SIDE:
        raise ConfigError(
            f"{where}: its pictures would be {config.native_size} pixels wide; at most {MAX_SIDE} "
            "are made"
        )


def _misfit(where: str, unet: str, others: str) -> ConfigError:
    return ConfigError(f"{where}: its parts do not belong together: its {unet}, its {others}")
