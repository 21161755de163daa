"""Read model_index.json and the JSON files of its components into a ModelConfig.

Absent fields get the defaults of the diffusers and transformers classes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.errors import ConfigError, WeightsError
from diffgen.jsonfile import JsonObject
from diffgen.models.checks import check_text, check_vae
from diffgen.models.config import ClipTextConfig, Family, ModelConfig, VaeConfig
from diffgen.types import NoiseConfig
from diffgen.weights.diffusers.options import one_of, refuse_other_values, unsupported
from diffgen.weights.diffusers.schedulers import read_schedule
from diffgen.weights.diffusers.unet_config import read_unet_config
from diffgen.weights.files import refuse_pickle

logger = logging.getLogger("diffgen")

SD_PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
)
SDXL_PIPELINES = (
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
)
# Pipelines of the same networks: with additional ones, which are not read, or guided otherwise.
WITH_EXTRAS = re.compile(
    r"(?:Semantic)?StableDiffusion(XL)?"
    r"(ControlNet|Union|Adapter|SAG|PAG|AttendAndExcite|Panorama|KDiffusion|LongPromptWeighting"
    r"|Reference|Differential|DiffEdit|Pix2PixZero|ModelEditing|Paradigms|InstantID|Mega|Comparison"
    r"|Tiling|Interpolation|IPEX)*(Img2Img|Inpaint)?Pipeline(Safe)?"
)
FAMILY_BY_CONTEXT: Mapping[int, Family] = {768: "sd1", 1024: "sd2"}

# Fields with other names in the files.
TEXT_KEYS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "max_tokens": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "projection": "projection_dim",
}
VAE_KEYS = {
    "channels": "block_out_channels",
    "blocks": "layers_per_block",
    "norm_groups": "norm_num_groups",
}

A_MODEL_FOLDER = (
    "a model folder in diffusers layout holds model_index.json and the folders unet, vae, "
    "text_encoder, tokenizer and scheduler"
)


def read_model_config(folder: Path, asked: Collection[str] = ()) -> ModelConfig:
    """Read the JSON files of a folder in diffusers layout.

    `asked` are the fields that the user sets, for which the scheduler's file is not asked.

    Raises WeightsError for a folder in another layout, UnsupportedCheckpoint for a model of another
    kind and ConfigError for a malformed file.
    """
    index = _read_index(folder)
    sdxl = _is_sdxl(index)
    unet = read_unet_config(_component(index, "unet", ("UNet2DConditionModel",)))
    vae = _read_vae(index, sdxl=sdxl)
    config = ModelConfig(
        family="sdxl" if sdxl else FAMILY_BY_CONTEXT.get(unet.context_dim, "custom"),
        text=_read_text(index, sdxl=sdxl),
        unet=unet,
        vae=vae,
        schedule=_read_schedule(index, asked, latent_sd=vae is not None and not sdxl),
        zero_empty_prompt=sdxl and index.get("force_zeros_for_empty_prompt", True),
    )
    if config.conditioning != "score":
        refuse_other_values(index, {"requires_aesthetics_score": (False,)})
    return config


def _is_sdxl(index: JsonObject) -> bool:
    """Whether the folder's pipeline is one of SDXL. Raises UnsupportedCheckpoint for others."""
    name = index.data.get("_class_name")
    if isinstance(name, list) and name:  # file and class of custom code, which is not run
        index = JsonObject(index.path, {**index.data, "_class_name": name[-1]})
    extra = WITH_EXTRAS.fullmatch(index.get("_class_name", ""))
    if extra is None or extra[0] in (*SD_PIPELINES, *SDXL_PIPELINES):
        pipeline = one_of(index, "_class_name", (*SD_PIPELINES, *SDXL_PIPELINES))
        return pipeline in SDXL_PIPELINES
    logger.warning(
        "%s is a %s: only its text encoders, U-Net and autoencoder are read",
        index.path.parent.name,
        extra[0],
    )
    return extra[1] is not None


def _read_index(folder: Path) -> JsonObject:
    refuse_pickle(folder)
    index = folder / "model_index.json"
    if index.is_file():
        return JsonObject.read(index)
    if not folder.exists():
        raise WeightsError(f"{folder} does not exist")
    for file in sorted(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has no model_index.json; if {file.name} is the model, name it"
        )
    raise WeightsError(f"{folder} is not a model: it has no model_index.json; {A_MODEL_FOLDER}")


def _class_of(index: JsonObject, component: str) -> str | None:
    """The class that model_index.json names for a component; None if the model has none."""
    entry = index.data.get(component)
    if entry is None or entry == [None, None]:
        return None
    if not isinstance(entry, list) or len(entry) != 2:
        raise ConfigError(f'{index.named(component)} should be ["library", "class"]')
    return str(entry[1])


def _component(index: JsonObject, component: str, classes: Sequence[str]) -> JsonObject:
    """The config of a component, whose class must be one of `classes`."""
    if _class_of(index, component) not in classes:
        raise unsupported(index, component, classes)
    return JsonObject.read(index.path.parent / component / "config.json")


def _read_vae(index: JsonObject, *, sdxl: bool) -> VaeConfig | None:
    """None if the model has no VAE: it works on pixels."""
    if _class_of(index, "vae") is None:
        return None
    return read_vae_config(_component(index, "vae", ("AutoencoderKL",)), sdxl=sdxl)


def read_vae_config(config: JsonObject, *, sdxl: bool = False) -> VaeConfig:
    """Read the config of an `AutoencoderKL`.

    Raises UnsupportedCheckpoint for an unsupported autoencoder, ConfigError for a malformed file or
    impossible numbers.
    """
    channels = config.many_or("block_out_channels", int, (64,))
    allowed = {
        "act_fn": ("silu", "swish"),
        "down_block_types": (["DownEncoderBlock2D"] * len(channels),),
        "up_block_types": (["UpDecoderBlock2D"] * len(channels),),
    }
    refuse_other_values(config, allowed)
    vae = VaeConfig(
        in_channels=config.get("in_channels", 3),
        out_channels=config.get("out_channels", 3),
        latent_channels=config.get("latent_channels", 4),
        channels=channels,
        blocks=config.get("layers_per_block", 1),
        mid_attention=config.get("mid_block_add_attention", True),
        norm_groups=config.get("norm_num_groups", 32),
        quant_conv=config.get("use_quant_conv", True),
        post_quant_conv=config.get("use_post_quant_conv", True),
        scaling_factor=config.get("scaling_factor", 0.18215),
        shift_factor=config.get("shift_factor", 0.0),
        latents_mean=config.many("latents_mean", float),
        latents_std=config.many("latents_std", float),
        # The class defaults to true for every model; only SDXL's pipelines read it.
        force_upcast=sdxl and config.get("force_upcast", True),
    )
    check_vae(vae, lambda name: config.named(VAE_KEYS.get(name, name)))
    return vae


def _read_text(index: JsonObject, *, sdxl: bool) -> tuple[ClipTextConfig, ...]:
    if not sdxl:
        return (_read_encoder(index, "text_encoder"),)
    # A refiner has only the second.
    names = ["text_encoder", "text_encoder_2"][_class_of(index, "text_encoder") is None :]
    encoders = [_read_encoder(index, name) for name in names]
    return tuple(replace(encoder, hidden="penultimate") for encoder in encoders)


def _read_encoder(index: JsonObject, component: str) -> ClipTextConfig:
    config = _component(index, component, ("CLIPTextModel", "CLIPTextModelWithProjection"))
    if config.data.get("model_type") == "clip":  # the config of both halves of CLIP
        config = JsonObject(config.path, config.table("text_config"))
    projected = _class_of(index, component) == "CLIPTextModelWithProjection"
    text = ClipTextConfig(
        vocab_size=config.get("vocab_size", 49408),
        width=config.get("hidden_size", 512),
        layers=config.get("num_hidden_layers", 12),
        num_heads=config.get("num_attention_heads", 8),
        mlp_width=config.get("intermediate_size", 2048),
        max_tokens=config.get("max_position_embeddings", 77),
        activation=one_of(config, "hidden_act", ("quick_gelu", "gelu")),
        norm_eps=config.get("layer_norm_eps", 1e-5),
        projection=config.get("projection_dim", 512) if projected else None,
    )
    check_text(text, lambda name: config.named(TEXT_KEYS.get(name, name)))
    return text


def _read_schedule(index: JsonObject, asked: Collection[str], *, latent_sd: bool) -> NoiseConfig:
    config = JsonObject.read(index.path.parent / "scheduler" / "scheduler_config.json")
    class_name = _class_of(index, "scheduler") or config.get("_class_name", "")
    schedule = read_schedule(config, class_name, asked)
    # StableDiffusionPipeline overrides these two, which were wrong in its first checkpoints.
    return replace(schedule, steps_offset=1, clip=None) if latent_sd else schedule
