"""A whole model in one file, as most are shared: the layouts of LDM (Stable Diffusion 1 and 2) and
SGM (XL).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from diffgen.errors import UnsupportedCheckpoint, some
from diffgen.models.config import ClipTextConfig, ModelConfig
from diffgen.types import TEXT_ENCODERS, Component
from diffgen.weights.files import LazyTensors, TensorInfo, read_header, read_metadata
from diffgen.weights.float8 import unscaled
from diffgen.weights.keymap import IGNORED, TEXT_RULES, to_canonical
from diffgen.weights.ldm import detect
from diffgen.weights.ldm.claims import Claim, read_claims, settle
from diffgen.weights.ldm.detect import SingleFamily
from diffgen.weights.ldm.names import canonical_vae, open_clip_rules, unet_rules
from diffgen.weights.spread import spread

logger = logging.getLogger("diffgen")
Infos = Mapping[str, TensorInfo]

UNET: Final = ("model.diffusion_model.",)
VAE: Final = ("first_stage_model.", "vae.")
CLIP: Final = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP: Final = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
SECOND: Final = ("conditioner.embedders.1.model.",)

# Trained for v, this bias has spread: 0.09 divides all known Stable Diffusion 2 models, by ComfyUI's
# finding. Nothing in a name or a shape tells.
TELLS_V: Final = f"{UNET[0]}output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_SPREAD: Final = 0.09
SIZES: Final[Mapping[SingleFamily, int]] = {"sd1": 64, "sd2": 64, "sdxl": 128}
SD2_V_SIZE: Final = 96

# What training leaves in a file and nothing reads: averages, tables, losses, counters, marks.
LEFT_OVER: Final = re.compile(
    r"model_ema\..+|.*loss\..+|global_step|scaled_fp8|v_pred|ztsnr"
    r"|(sqrt_|log_)?(recip|recipm1|one_minus)?_?(alphas|betas|posterior|logvar|lvlb).*"
    r"|denoiser\.(sigmas|log_sigmas)|(first_stage_model|vae)\.(model_ema|ema)\..+"
)


@dataclass(frozen=True, slots=True)
class SingleFile:
    """What a file holds: the model's config, and its tensors under canonical names."""

    config: ModelConfig
    tensors: Mapping[Component, LazyTensors]


def open_single_file(
    path: Path, *, needs_vae: bool = True, asked: Mapping[str, object] | None = None
) -> SingleFile:
    """Read a file's header, and what it does not say from what families have in common.

    An autoencoder may be missing where none is needed. `asked` are the user's own claims, which
    come first. Raises WeightsError for a file that is no whole safetensors file, ConfigError for a
    YAML beside it that cannot be read, UnsupportedCheckpoint for one that holds no model of a kind
    we know.
    """
    infos = read_header(path)
    try:
        claims = [*_asked(asked), *read_claims(path, read_metadata(path))]
        opened = _opened(unscaled(infos), claims, needs_vae=needs_vae)
    except UnsupportedCheckpoint as error:
        raise UnsupportedCheckpoint(f"{path} cannot be used as a model: {error}") from error
    except (IndexError, ValueError) as error:  # a vector where all models have a matrix
        raise UnsupportedCheckpoint(
            f"{path} cannot be used as a model: its tensors have other shapes than Stable "
            "Diffusion's"
        ) from error
    _report_strangers(path, infos)
    return opened


def _asked(values: Mapping[str, object] | None) -> list[Claim]:
    return [Claim("the command line", values)] if values else []


def _report_strangers(path: Path, infos: Infos) -> None:
    """Name the tensors that belong to no part we know; those inside of one are errors."""
    parts = (*UNET, *VAE, *CLIP, *OPEN_CLIP, *SECOND)
    strangers = [
        key
        for key in infos
        if not (key.startswith(parts) or LEFT_OVER.fullmatch(key) or IGNORED.fullmatch(key))
    ]
    if strangers:
        logger.warning(
            "%s has %d tensors that are not read: %s", path, len(strangers), some(strangers)
        )


def _opened(infos: Infos, claims: list[Claim], *, needs_vae: bool) -> SingleFile:
    family = _family(infos)
    vae = canonical_vae(_part(infos, VAE))
    config = _config(infos, family, vae, settle([*claims, *_marks(infos, family)]))
    unet = to_canonical(_part(infos, UNET), unet_rules(config.unet))
    tensors: dict[Component, LazyTensors] = {"unet": LazyTensors(unet)}
    if config.vae:
        tensors["vae"] = LazyTensors(vae)
    elif needs_vae:
        raise UnsupportedCheckpoint("it has no autoencoder; give one with --vae")
    for part, prefixes, text in zip(
        TEXT_ENCODERS, _encoders(infos, family), config.text, strict=False
    ):
        tensors[part] = LazyTensors(_text(_part(infos, prefixes), text, prefixes))
    return SingleFile(config, tensors)


def _part(infos: Infos, prefixes: tuple[str, ...]) -> dict[str, TensorInfo]:
    """The tensors of a component, its prefix cut off, without what training left there."""
    return {
        key.removeprefix(prefix): info
        for prefix in prefixes
        for key, info in infos.items()
        if key.startswith(prefix) and not LEFT_OVER.fullmatch(key)
    }


def _family(infos: Infos) -> SingleFamily:
    if any(re.match(r"lora_|lycoris_|.+\.lora_(A|B|up|down)\.", key) for key in infos):
        raise UnsupportedCheckpoint("it is a LoRA; give it with --lora, beside the model it is for")
    if not _part(infos, UNET):
        raise UnsupportedCheckpoint(
            f"it has no U-Net ({UNET[0]}*); a whole Stable Diffusion 1, 2 or XL model is needed"
        )
    if any(key.startswith("edm_") for key in infos):
        raise UnsupportedCheckpoint("it was trained on another noise schedule (EDM)")
    if _part(infos, SECOND):
        return "sdxl"
    if f"{UNET[0]}label_emb.0.0.weight" in infos:
        raise UnsupportedCheckpoint(_with_label(infos))
    if clip := _part(infos, CLIP):
        shape = clip.get("text_model.embeddings.token_embedding.weight")
        # Programs that keep encoders under transformers' names keep that of 2 so as well.
        return "sd2" if shape and shape.shape[1:] == (detect.SD2_WIDTH,) else "sd1"
    if _part(infos, OPEN_CLIP):
        return "sd2"
    raise UnsupportedCheckpoint("it has no text encoder that we know")


def _with_label(infos: Infos) -> str:
    """What a model is that is told more than its one text encoder says."""
    if any(key.startswith(OPEN_CLIP[1]) for key in infos):
        return "it is an SDXL refiner, which makes no pictures by itself"
    if any(key.startswith("cond_stage_model.") for key in infos):
        return "its U-Net is told more than text (label_emb), as that of Stable unCLIP"
    return f"it lacks the second text encoder of Stable Diffusion XL ({SECOND[0]}*)"


def _encoders(infos: Infos, family: SingleFamily) -> tuple[tuple[str, ...], ...]:
    if family == "sdxl":
        return CLIP, SECOND
    return (CLIP,) if _part(infos, CLIP) else (OPEN_CLIP,)


def _text(infos: Infos, config: ClipTextConfig, prefixes: tuple[str, ...]) -> Infos:
    if prefixes == CLIP:
        return to_canonical(infos, TEXT_RULES)
    spare = f"transformer.resblocks.{config.layers}."
    kept = {key: info for key, info in infos.items() if not key.startswith(spare)}
    return to_canonical(kept, open_clip_rules(config.layers))


def _config(infos: Infos, family: SingleFamily, vae: Infos, told: Mapping[str, Any]) -> ModelConfig:
    v = told.get("prediction") == "v"
    # SGM keeps its sigmas with a model. XL files have them too; of 2, only Turbo came from there.
    turbo = family == "sd2" and "denoiser.sigmas" in infos
    unet = replace(
        detect.read_unet(_shapes(_part(infos, UNET)), family),
        sample_size=SD2_V_SIZE if family == "sd2" and v else SIZES[family],
        upcast_attention=family == "sd2" and v,
    )
    text = _text_configs(infos, family)
    width = sum(encoder.width for encoder in text)
    if unet.context_dim != width:
        raise UnsupportedCheckpoint(
            f"its U-Net reads text of width {unet.context_dim}, its encoders write {width}"
        )
    if family == "sdxl":
        pooled = text[1].projection or 0
        unet = replace(unet, time_ids_dim=((unet.added_dim or 0) - pooled) // detect.SDXL_TIME_IDS)
    schedule = detect.schedule_of(family, v=v, zero_snr="zero_snr" in told, turbo=turbo)
    return ModelConfig(
        family=family,
        text=text,
        unet=unet,
        vae=detect.read_vae(_shapes(vae), family) if vae else None,
        schedule=replace(schedule, **{k: told[k] for k in OF_THE_SCHEDULE if k in told}),
        zero_empty_prompt=family == "sdxl",
        # XL is trained on its encoders' last layer but one whatever a trainer notes.
        clip_skip=None if family == "sdxl" else told.get("clip_skip"),
    )


OF_THE_SCHEDULE = ("prediction", "zero_snr", "beta_start", "beta_end", "num_train_timesteps")


def _text_configs(infos: Infos, family: SingleFamily) -> tuple[ClipTextConfig, ...]:
    configs = []
    for prefixes in _encoders(infos, family):
        shapes = _shapes(_part(infos, prefixes))
        if prefixes == CLIP:  # files of 2022 lack the inner prefix
            shapes = {key.removeprefix("text_model."): shape for key, shape in shapes.items()}
            configs.append(detect.read_clip(shapes, family))
        else:
            configs.append(detect.read_open_clip(shapes, family))
    return tuple(configs)


def _shapes(infos: Infos) -> dict[str, tuple[int, ...]]:
    return {key: info.shape for key, info in infos.items()}


def _marks(infos: Infos, family: SingleFamily) -> Iterator[Claim]:
    """What single tensors tell."""
    if "v_pred" in infos:
        yield Claim("the tensor v_pred", {"prediction": "v"})
    if "ztsnr" in infos:
        yield Claim("the tensor ztsnr", {"zero_snr": True})
    if family == "sd2" and TELLS_V in infos:
        kind = "v" if spread(infos[TELLS_V]) > V_SPREAD else "eps"
        yield Claim(f"the spread of {TELLS_V}", {"prediction": kind})
