"""A whole model in one file, as most are shared: the layouts of LDM (Stable Diffusion 1 and 2) and
SGM (XL). Importing this module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from diffgen.errors import UnsupportedCheckpoint
from diffgen.models.config import ClipTextConfig, ModelConfig
from diffgen.types import Component
from diffgen.weights import detect
from diffgen.weights.detect import SingleFamily
from diffgen.weights.files import LazyTensors, TensorInfo, read_header
from diffgen.weights.keymap import TEXT_RULES, to_canonical
from diffgen.weights.ldm import open_clip_rules, unet_rules, vae_rules

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


@dataclass(frozen=True, slots=True)
class SingleFile:
    """What a file holds: the model's config, and its tensors under canonical names."""

    config: ModelConfig
    tensors: Mapping[Component, LazyTensors]


def open_single_file(path: Path, *, needs_vae: bool = True) -> SingleFile:
    """Read a file's header, and what it does not say from what families have in common.

    An autoencoder may be missing where none is needed. Raises WeightsError for a file that is no
    whole safetensors file, UnsupportedCheckpoint for one that holds no model of a kind we know.
    """
    infos = read_header(path)
    try:
        return _opened(infos, needs_vae=needs_vae)
    except UnsupportedCheckpoint as error:
        raise UnsupportedCheckpoint(f"{path} cannot be used as a model: {error}.") from error
    except (IndexError, ValueError) as error:  # a vector where all models have a matrix
        raise UnsupportedCheckpoint(
            f"{path} cannot be used as a model: its tensors have other shapes than Stable "
            "Diffusion's."
        ) from error


def _opened(infos: Infos, *, needs_vae: bool) -> SingleFile:
    family = _family(infos)
    config = _config(infos, family)
    unet = to_canonical(_part(infos, UNET), unet_rules(config.unet))
    tensors: dict[Component, LazyTensors] = {"unet": LazyTensors(unet)}
    if config.vae:
        tensors["vae"] = LazyTensors(to_canonical(_part(infos, VAE), vae_rules(config.vae)))
    elif needs_vae:
        raise UnsupportedCheckpoint("it has no autoencoder; give one with --vae")
    parts: tuple[Component, ...] = ("text_encoder", "text_encoder_2")
    for part, prefixes, text in zip(parts, _encoders(family), config.text, strict=False):
        tensors[part] = LazyTensors(_text(_part(infos, prefixes), text, prefixes))
    return SingleFile(config, tensors)


def _part(infos: Infos, prefixes: tuple[str, ...]) -> dict[str, TensorInfo]:
    """The tensors of a component, its prefix cut off."""
    return {
        key.removeprefix(prefix): info
        for prefix in prefixes
        for key, info in infos.items()
        if key.startswith(prefix)
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
        raise UnsupportedCheckpoint("it is an SDXL refiner, which makes no pictures by itself")
    if _part(infos, CLIP):
        return "sd1"
    if _part(infos, OPEN_CLIP):
        return "sd2"
    raise UnsupportedCheckpoint("it has no text encoder that we know")


def _encoders(family: SingleFamily) -> tuple[tuple[str, ...], ...]:
    return {"sd1": (CLIP,), "sd2": (OPEN_CLIP,), "sdxl": (CLIP, SECOND)}[family]


def _text(infos: Infos, config: ClipTextConfig, prefixes: tuple[str, ...]) -> Infos:
    if prefixes == CLIP:
        return to_canonical(infos, TEXT_RULES)
    last = re.compile(rf"transformer\.resblocks\.(?:{config.layers})\..+")
    kept = {key: info for key, info in infos.items() if not last.fullmatch(key)}
    return to_canonical(kept, open_clip_rules(config.layers))


def _config(infos: Infos, family: SingleFamily) -> ModelConfig:
    v = _predicts_v(infos, family)
    # SGM keeps its sigmas with a model. XL files have them too; of 2, only Turbo came from there.
    turbo = family == "sd2" and "denoiser.sigmas" in infos
    unet = replace(
        detect.read_unet(_shapes(infos, UNET), family),
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
    vae = _shapes(infos, VAE)
    return ModelConfig(
        family=family,
        text=text,
        unet=unet,
        vae=detect.read_vae(vae, family) if vae else None,
        schedule=detect.schedule_of(family, v=v, zero_snr="ztsnr" in infos, turbo=turbo),
        zero_empty_prompt=family == "sdxl",
    )


def _text_configs(infos: Infos, family: SingleFamily) -> tuple[ClipTextConfig, ...]:
    configs = []
    for prefixes in _encoders(family):
        shapes = _shapes(infos, prefixes)
        if prefixes == CLIP:  # files of 2022 lack the inner prefix
            shapes = {key.removeprefix("text_model."): shape for key, shape in shapes.items()}
            configs.append(detect.read_clip(shapes, family))
        else:
            configs.append(detect.read_open_clip(shapes, family))
    return tuple(configs)


def _shapes(infos: Infos, prefixes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {key: info.shape for key, info in _part(infos, prefixes).items()}


def _predicts_v(infos: Infos, family: SingleFamily) -> bool:
    if family == "sd2" and TELLS_V in infos:
        return float(LazyTensors(infos)[TELLS_V].float().std()) > V_SPREAD
    return "v_pred" in infos
