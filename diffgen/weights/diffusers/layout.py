"""Write a config as the JSON files of a diffusers model folder: the inverse of `configs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffgen.diffusion.schedule import edm_range
from diffgen.errors import ConfigError, UnsupportedCheckpoint
from diffgen.jsonfile import JsonObject
from diffgen.models.config import ClipTextConfig, Depth, ModelConfig, UNetConfig, VaeConfig
from diffgen.types import TEXT_ENCODERS, NoiseConfig
from diffgen.weights.diffusers.configs import read_model_config
from diffgen.weights.diffusers.folder import folder_name
from diffgen.weights.diffusers.scheduler_classes import (
    CLASSES,
    EDM_CLASSES,
    FLOW_CLASSES,
    SIGMA_OPTIONS,
)
from diffgen.weights.diffusers.schedulers import PREDICTIONS

CLASSES_BY_COMPONENT = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
}
SECOND = {
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
}
ABSENT = ("safety_checker", "feature_extractor", "image_encoder")


def write_model_configs(
    folder: Path, config: ModelConfig, tokens: Sequence[tuple[int, int]]
) -> None:
    """Write model_index.json and every component's JSON.

    `tokens` are the ids of the end and padding tokens of each text encoder. Raises ConfigError for
    an architecture or a schedule that the layout cannot express.
    """
    scheduler = scheduler_class(config.schedule)
    write_json(folder / "model_index.json", _index(config, scheduler))
    write_json(folder / "unet" / "config.json", unet_json(config.unet))
    for name, text, (end, pad) in zip(TEXT_ENCODERS, config.text, tokens, strict=False):
        subfolder = folder / folder_name(name, is_refiner=config.is_refiner)
        write_json(subfolder / "config.json", text_json(text, end, pad))
    schedule = {"_class_name": scheduler, **schedule_json(config.schedule)}
    write_json(folder / "scheduler" / "scheduler_config.json", schedule)
    if config.vae:
        write_json(folder / "vae" / "config.json", vae_json(config.vae))
    _check_reads_back(folder, config)


def _index(config: ModelConfig, scheduler: str) -> dict[str, Any]:
    parts = {**CLASSES_BY_COMPONENT, "scheduler": ("diffusers", scheduler)}
    own: dict[str, Any] = {"requires_safety_checker": False}
    absent = [*ABSENT, *([] if config.vae else ["vae"])]
    if config.is_xl:
        parts |= SECOND
        own = {"force_zeros_for_empty_prompt": config.zero_empty_prompt}
        absent.remove("safety_checker")
    name = "StableDiffusionXLPipeline" if config.is_xl else "StableDiffusionPipeline"
    if config.is_refiner:
        name = "StableDiffusionXLImg2ImgPipeline"
        own["requires_aesthetics_score"] = config.conditioning == "score"
        absent += ["text_encoder", "tokenizer"]
    return {
        "_class_name": name,
        **own,
        **{name: list(kind) for name, kind in parts.items()},
        **{name: [None, None] for name in absent},
    }


def write_lcm_configs(folder: Path, config: ModelConfig, *, timestep_scaling: float) -> None:
    """Change the configs in a teacher's folder to those of its student, of `config`."""
    index, unet, scheduler = (
        folder / name
        for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
    )
    told = {"time_cond_proj_dim": config.unet.guidance_dim}
    write_json(unet, {**JsonObject.read(unet).data, **told})
    name = scheduler_class(config.schedule)
    write_json(index, {**JsonObject.read(index).data, "scheduler": ["diffusers", name]})
    grid = {
        "original_inference_steps": config.schedule.distilled_steps,
        "timestep_scaling": timestep_scaling,
    }
    write_json(scheduler, {"_class_name": name, **schedule_json(config.schedule), **grid})


def write_choices(folder: Path, config: ModelConfig) -> None:
    """Record a chosen autoencoder and prediction in a base's configs."""
    own = read_model_config(folder)
    if config.vae and own.vae != config.vae:
        index = folder / "model_index.json"
        parts = {"vae": list(CLASSES_BY_COMPONENT["vae"])}
        write_json(index, {**JsonObject.read(index).data, **parts})
        write_json(folder / "vae" / "config.json", vae_json(config.vae))
    schedule = config.schedule
    if (own.schedule.prediction, own.schedule.zero_snr) != (schedule.prediction, schedule.zero_snr):
        file = folder / "scheduler" / "scheduler_config.json"
        chosen = schedule_json(schedule)
        keys = ("prediction_type", "rescale_betas_zero_snr")
        write_json(file, {**JsonObject.read(file).data, **{key: chosen[key] for key in keys}})


def _check_reads_back(folder: Path, config: ModelConfig) -> None:
    try:
        back = read_model_config(folder)
    except UnsupportedCheckpoint as error:
        raise ConfigError(f"a diffusers model folder cannot hold this recipe: {error}") from error
    for name in ("unet", "text", "vae"):
        if getattr(back, name) != getattr(config, name):
            raise ConfigError(
                f"[model.{name}] has options that a diffusers model folder cannot hold together; "
                f"they would be read back as {getattr(back, name)}"
            )
    kept = ("prediction", "zero_snr", "beta_schedule", "num_train_timesteps", "sampler", "spacing")
    for key in kept:
        value = getattr(config.schedule, key)
        if getattr(back.schedule, key) != value:
            raise ConfigError(
                f'model.schedule.{key} = "{value}" cannot be kept in a diffusers model folder; '
                "choose another"
            )


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write an object, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def unet_json(config: UNetConfig) -> dict[str, Any]:
    """The config.json of a `UNet2DConditionModel`."""
    up = config.up_depth or config.depth
    mid = {None: None, 0: "UNetMidBlock2D"}.get(config.mid_depth, "UNetMidBlock2DCrossAttn")
    # One list serves down path, middle and up path; block types tell where attention is.
    layers = [_as_json(down or other or 1) for down, other in zip(config.depth, up, strict=True)]
    back = [_as_json(other or down or 1) for down, other in zip(config.depth, up, strict=True)]
    uneven = back != layers or any(isinstance(depth, list) for depth in back)
    if config.mid_depth and not isinstance(layers[-1], list):
        layers[-1] = config.mid_depth
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "sample_size": config.sample_size,
        "block_out_channels": list(config.channels),
        # diffusers' single-file loader supports only one number for all levels.
        "layers_per_block": config.blocks[0]
        if len(set(config.blocks)) == 1
        else list(config.blocks),
        "down_block_types": [_block("Down", depth) for depth in config.depth],
        "up_block_types": [_block("Up", depth) for depth in reversed(up)],
        "mid_block_type": mid,
        "transformer_layers_per_block": layers,
        **({"reverse_transformer_layers_per_block": back[::-1]} if uneven else {}),
        "attention_head_dim": list(config.num_heads),
        "cross_attention_dim": config.context_dim,
        "use_linear_projection": config.linear_projection,
        "norm_num_groups": config.norm_groups,
        "norm_eps": config.norm_eps,
        "flip_sin_to_cos": config.flip_sin_to_cos,
        "freq_shift": int(config.freq_shift),
        "time_cond_proj_dim": config.guidance_dim,
        "upcast_attention": config.upcast_attention,
        **_size_conditioning(config),
    }


def _size_conditioning(config: UNetConfig) -> dict[str, Any]:
    """The U-Net options of Stable Diffusion XL's size and pooled-text conditioning."""
    if config.added_dim is None:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": config.time_ids_dim,
        "projection_class_embeddings_input_dim": config.added_dim,
    }


def _as_json(depth: Depth) -> int | list[int]:
    return list(depth) if isinstance(depth, tuple) else depth


def _block(way: str, depth: Depth) -> str:
    return f"CrossAttn{way}Block2D" if depth else f"{way}Block2D"


def vae_json(config: VaeConfig) -> dict[str, Any]:
    """The config.json of an `AutoencoderKL`."""
    levels = len(config.channels)
    statistics = {"latents_mean": config.latents_mean, "latents_std": config.latents_std}
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": list(config.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": config.blocks,
        "mid_block_add_attention": config.mid_attention,
        "norm_num_groups": config.norm_groups,
        "use_quant_conv": config.quant_conv,
        "use_post_quant_conv": config.post_quant_conv,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor or None,
        **{key: list(value) for key, value in statistics.items() if value is not None},
        "force_upcast": config.force_upcast,
    }


def text_json(config: ClipTextConfig, end: int, pad: int) -> dict[str, Any]:
    """The config.json of a `CLIPTextModel`."""
    return {
        "architectures": ["CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.max_tokens,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "projection_dim": config.projection or config.width,
        "eos_token_id": end,
        "pad_token_id": pad,
    }


def schedule_json(config: NoiseConfig) -> dict[str, Any]:
    """The scheduler_config.json, without its class."""
    if config.prediction == "flow":
        curves = {key: True for key, name in SIGMA_OPTIONS.items() if name == config.spacing}
        return {
            "num_train_timesteps": config.num_train_timesteps,
            "shift": config.shift,
            **curves,
        }
    if not config.on_betas:
        low, high, data = edm_range(config)
        return {
            "num_train_timesteps": config.num_train_timesteps,
            "prediction_type": "v_prediction" if config.prediction == "edm_v" else "epsilon",
            "sigma_min": low,
            "sigma_max": high,
            "sigma_data": data,
            "sigma_schedule": config.spacing,
        }
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    return {
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "trained_betas": None if config.betas is None else list(config.betas),
        "num_train_timesteps": config.num_train_timesteps,
        "prediction_type": predictions[config.prediction],
        "rescale_betas_zero_snr": config.zero_snr,
        "timestep_spacing": config.spacing,
        "steps_offset": config.steps_offset,
        "set_alpha_to_one": config.final_alpha_one is not False,
        "clip_sample": config.clip is not None,
        "clip_sample_range": config.clip or 1.0,
        **({"skip_prk_steps": True} if config.sampler == "plms" else {}),
    }


def scheduler_class(config: NoiseConfig) -> str:
    """The diffusers class for a model's sampler. Raises ConfigError if there is none."""
    samplers = {name: kind.sampler for name, kind in CLASSES.items()}
    if not config.on_betas:
        samplers = dict(FLOW_CLASSES if config.prediction == "flow" else EDM_CLASSES)
    for name, sampler in samplers.items():
        if sampler == config.sampler:
            return name
    known = ", ".join(samplers.values())
    raise ConfigError(
        f'model.schedule.sampler = "{config.sampler}" has no diffusers scheduler; take one of: '
        f"{known}"
    )
