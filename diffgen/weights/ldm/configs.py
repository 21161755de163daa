"""The config of a model in one file, from its tensors and claims about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from diffgen.errors import UnsupportedCheckpoint
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.weights.files import LazyTensors
from diffgen.weights.ldm import detect
from diffgen.weights.ldm.detect import SingleFamily
from diffgen.weights.ldm.parts import (
    CLIP,
    UNET,
    Infos,
    below,
    encoder_prefixes,
    named_by_open_clip,
    shapes_of,
)
from diffgen.weights.noise import with_noise

logger = logging.getLogger("diffgen")

SIZES: Final[Mapping[SingleFamily, int]] = {"sd1": 64, "sd2": 64, "sdxl": 128}
SD2_V_SIZE: Final = 96
SDXL_TIME_IDS: Final = 6  # sizes and crops beside the pooled text
REFINER_TIME_IDS: Final = 5
# Playground v2.5: the statistics of its latents, and their scale.
EDM_STATISTICS: Final = ("edm_mean", "edm_std")
EDM_VAE_SCALE: Final = 0.5
# Options that a U-Net's tensors do not determine.
NOT_IN_SHAPES: Final = (
    "sample_size",
    "norm_groups",
    "norm_eps",
    "flip_sin_to_cos",
    "freq_shift",
    "time_ids_dim",
    "upcast_attention",
)


def whole_config(
    infos: Infos, family: SingleFamily, vae: Infos, told: Mapping[str, Any]
) -> ModelConfig:
    """The config of a whole model; `told` are the claims about it, by field.

    Raises UnsupportedCheckpoint for parts that are missing or do not belong together.
    """
    v = told.get("prediction") == "v"
    # SGM keeps its sigmas with a model. XL files have them too; of 2, only Turbo came from there.
    turbo = family == "sd2" and "denoiser.sigmas" in infos
    unet = replace(
        detect.read_unet(shapes_of(below(infos, UNET)), family),
        sample_size=SD2_V_SIZE if family == "sd2" and v else SIZES[family],
        upcast_attention=family == "sd2" and v,
    )
    text = _text_configs(infos, family)
    _check_width(unet, text, family)
    if family == "sdxl":
        # A refiner takes a score instead of the picture's final size, and has one encoder.
        ids = SDXL_TIME_IDS if len(text) > 1 else REFINER_TIME_IDS
        told_of_sizes = (unet.added_dim or 0) - (text[-1].projection or 0)
        unet = replace(unet, time_ids_dim=told_of_sizes // ids)
    schedule = detect.schedule_of(family, v=v, zero_snr=bool(told.get("zero_snr")), turbo=turbo)
    return ModelConfig(
        family=family,
        text=text,
        unet=unet,
        vae=_vae_config(infos, family, vae, told) if vae else None,
        schedule=with_noise(schedule, told),
        zero_empty_prompt=family == "sdxl" and len(text) > 1,
        # XL uses its encoders' penultimate layer, whatever a trainer notes.
        clip_skip=None if family == "sdxl" else _clip_skip(told, text),
    )


def _check_width(unet: UNetConfig, text: tuple[ClipTextConfig, ...], family: SingleFamily) -> None:
    """Raise UnsupportedCheckpoint for encoders that are not those of a U-Net."""
    width = sum(encoder.width for encoder in text)
    if family == "sdxl" and len(text) == 1 and unet.context_dim > width:
        raise UnsupportedCheckpoint(
            f"it lacks the first text encoder of Stable Diffusion XL ({CLIP[1]}*)"
        )
    if unet.context_dim != width:
        raise UnsupportedCheckpoint(
            f"its U-Net reads text of width {unet.context_dim}, its encoders write {width}"
        )


def _clip_skip(told: Mapping[str, Any], text: tuple[ClipTextConfig, ...]) -> int | None:
    """The layer that the file's trainer notes, if there is one of that number."""
    skip: int | None = told.get("clip_skip")
    if skip is not None and skip > text[0].layers:
        logger.warning(
            "its metadata note a clip skip of %d, where the text encoder has %d layers: left out",
            *(skip, text[0].layers),
        )
        return None
    return skip


def config_on_base(
    infos: Infos, family: SingleFamily, vae: Infos, told: Mapping[str, Any], base: ModelConfig
) -> ModelConfig:
    """A U-Net's config, completed from another model's."""
    found, own = detect.read_unet(shapes_of(below(infos, UNET)), family), base.unet
    if (found.context_dim, found.added_dim) != (own.context_dim, own.added_dim):
        raise UnsupportedCheckpoint(
            f"its U-Net reads text of width {found.context_dim} and {found.added_dim or 0} numbers "
            f"beside it, that of --base {own.context_dim} and {own.added_dim or 0}: they are of "
            "different families"
        )
    heads = own.num_heads if found.channels == own.channels else found.num_heads
    kept = {name: getattr(own, name) for name in NOT_IN_SHAPES}
    return replace(
        base,
        unet=replace(found, num_heads=heads, **kept),
        vae=_vae_config(infos, family, vae, told) if vae else base.vae,
        schedule=with_noise(base.schedule, told),
    )


def _vae_config(
    infos: Infos, family: SingleFamily, vae: Infos, told: Mapping[str, Any]
) -> VaeConfig:
    config = detect.read_vae(shapes_of(vae), family)
    if "scaling_factor" in told:
        config = replace(config, scaling_factor=told["scaling_factor"])
    found = [key for key in EDM_STATISTICS if key in infos]
    if not found:
        return config
    if len(found) < len(EDM_STATISTICS):
        raise UnsupportedCheckpoint(f"it has {found[0]} without the other of {EDM_STATISTICS}")
    mean, std = (LazyTensors(infos)[key].flatten().tolist() for key in EDM_STATISTICS)
    return replace(
        config, latents_mean=tuple(mean), latents_std=tuple(std), scaling_factor=EDM_VAE_SCALE
    )


def _text_configs(infos: Infos, family: SingleFamily) -> tuple[ClipTextConfig, ...]:
    configs = []
    found = encoder_prefixes(infos)
    second = found[-1] if family == "sdxl" else None  # or the only one, a refiner's
    for prefixes in found:
        shapes = shapes_of(below(infos, prefixes))
        if named_by_open_clip(shapes):
            configs.append(detect.read_open_clip(shapes, family))
        else:  # files of 2022 lack the inner prefix
            shapes = {key.removeprefix("text_model."): shape for key, shape in shapes.items()}
            configs.append(detect.read_clip(shapes, family, second=prefixes == second))
    return tuple(configs)
