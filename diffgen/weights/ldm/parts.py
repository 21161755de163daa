"""The parts of a whole model in one file, by the prefixes of their names (LDM, SGM)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Final

from diffgen.weights.files import Shape, TensorInfo

Infos = Mapping[str, TensorInfo]

UNET: Final = ("model.diffusion_model.",)
VAE: Final = ("first_stage_model.", "vae.")
CLIP: Final = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP: Final = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
SECOND: Final = ("conditioner.embedders.1.model.", "conditioner.embedders.1.transformer.")

# Unused leftovers of training: averages, tables, losses, counters, marks; and CLIP's image
# encoder.
LEFT_OVER: Final = re.compile(
    r"model_ema\..+|.*loss\..+|global_step|(.+\.)?scaled_fp8|v_pred|ztsnr|edm_(mean|std|vpred\..+)"
    r"|(cond_stage_model|conditioner)\.(.+\.)?(visual\..+|vision_model\..+|visual_projection\..+"
    r"|attn_mask)"
    r"|(sqrt_|log_)?(recip|recipm1|one_minus)?_?(alphas|betas|posterior|logvar|lvlb).*"
    r"|denoiser\.(sigmas|log_sigmas)|(first_stage_model|vae)\.(model_ema|ema)\..+"
)


def below(infos: Infos, prefixes: tuple[str, ...]) -> dict[str, TensorInfo]:
    """The tensors of a component, without their prefix and without leftovers of training."""
    return {
        key.removeprefix(prefix): info
        for prefix in reversed(prefixes)  # of two for one name the first is kept
        for key, info in infos.items()
        if key.startswith(prefix) and not LEFT_OVER.fullmatch(key)
    }


def twice(infos: Infos) -> Iterator[tuple[str, str]]:
    """Prefixes of parts that a file has two of, that which is read first."""
    for prefixes in (VAE, CLIP, OPEN_CLIP, SECOND):
        for first, other in combinations(prefixes, 2):
            inside = {key.removeprefix(first) for key in infos if key.startswith(first)}
            if any(key.startswith(other) and key.removeprefix(other) in inside for key in infos):
                yield first, other


def encoder_prefixes(infos: Infos) -> tuple[tuple[str, ...], ...]:
    """The prefixes of each text encoder; none for a U-Net alone."""
    if below(infos, SECOND):  # a refiner has this one alone
        return (CLIP, SECOND) if below(infos, CLIP) else (SECOND,)
    found = [prefixes for prefixes in (CLIP, OPEN_CLIP) if below(infos, prefixes)]
    return tuple(found[:1])


def shapes_of(infos: Infos) -> dict[str, Shape]:
    """The tensors' shapes by name."""
    return {key: info.shape for key, info in infos.items()}


def named_by_open_clip(keys: Iterable[str]) -> bool:
    """Whether a text encoder, without its prefix, has OpenCLIP's names, not transformers'."""
    return any(key.startswith("transformer.resblocks.") for key in keys)
