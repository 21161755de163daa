"""An autoencoder from its own file, for another model's U-Net."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from diffgen.errors import UnsupportedCheckpoint, UsageError, some
from diffgen.jsonfile import JsonObject
from diffgen.models.config import ModelConfig, VaeConfig
from diffgen.weights.contents import contents_of
from diffgen.weights.diffusers.configs import read_vae_config
from diffgen.weights.diffusers.folder import weight_files
from diffgen.weights.files import LazyTensors, TensorInfo, open_tensors
from diffgen.weights.keymap import FOLDER_RULES, to_canonical
from diffgen.weights.kinds import kind_of
from diffgen.weights.ldm import detect
from diffgen.weights.ldm.names import canonical_vae
from diffgen.weights.ldm.single_file import read_any

Infos = Mapping[str, TensorInfo]

# The autoencoder's tensors in a file, alone or in a whole model, without averages and losses.
ANYWHERE = re.compile(
    r"(?:mod(?:ule|el)\.)?(?:(?:first_stage_model|vae|autoencoder)\.)?"
    r"((?:en|de)coder\..+|(?:post_)?quant_conv\..+)"
)
# The scaling of latents and options of decoding, which shapes do not determine.
TAKEN_FROM_THE_MODEL = (
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
    "force_upcast",
)
FIRST = "decoder.conv_in.weight"
NAMED_BY_DIFFUSERS = "decoder.mid_block.resnets.0.conv1.weight"


def open_vae(path: Path, model: ModelConfig) -> tuple[VaeConfig, LazyTensors]:
    """The autoencoder at a path: a file, its folder in diffusers layout, or a whole model's.

    A file does not contain the scaling of latents: that comes from a config.json beside it, else
    from the model it is for. Raises UsageError for a missing path, WeightsError or ConfigError for
    damaged files and UnsupportedCheckpoint for an unsupported autoencoder or other latents than the
    model's.
    """
    if not path.exists():
        raise UsageError(f"there is no autoencoder at {path}")
    with detect.unusable(f"{path} cannot be used as autoencoder"):
        config, infos = _from_file(path, model) if path.is_file() else _from_folder(path, model)
        if config.latent_channels != model.unet.out_channels:
            raise UnsupportedCheckpoint(
                f"it has {config.latent_channels} latent channels, the model's U-Net "
                f"{model.unet.out_channels}"
            )
    return config, LazyTensors(infos)


def _from_folder(path: Path, model: ModelConfig) -> tuple[VaeConfig, Infos]:
    folder = path / "vae" if (path / "vae").is_dir() else path
    infos = open_tensors(weight_files(folder, "vae")).infos
    config = read_vae_config(JsonObject.read(folder / "config.json"), sdxl=model.family == "sdxl")
    return config, to_canonical(infos, FOLDER_RULES["vae"])


def _from_file(path: Path, model: ModelConfig) -> tuple[VaeConfig, Infos]:
    infos, _ = read_any(path)
    found = canonical_vae({m[1]: info for k, info in infos.items() if (m := ANYWHERE.fullmatch(k))})
    shapes = {key: info.shape for key, info in found.items()}
    if FIRST not in shapes:
        raise UnsupportedCheckpoint(_other_kind(infos))
    config = detect.read_vae(shapes, "sdxl" if model.family == "sdxl" else "sd1")
    if NAMED_BY_DIFFUSERS in infos and (said := _config_beside(path, config, model)):
        return said, found
    if own := model.vae:
        config = replace(config, **{name: getattr(own, name) for name in TAKEN_FROM_THE_MODEL})
    return config, found


def _other_kind(infos: Infos) -> str:
    contents = contents_of({key: info.shape for key, info in infos.items()})
    if contents.holds == "unet":
        return "it is a U-Net"
    if contents.holds != "vae" and (kind := kind_of(infos)):
        return f"it is {kind}"
    return f"it has no {FIRST}; its tensors are {some(list(infos))}"


def _config_beside(path: Path, found: VaeConfig, model: ModelConfig) -> VaeConfig | None:
    """The config in the file's folder, if it describes an autoencoder of these shapes."""
    file = path.with_name("config.json")
    if not file.is_file():
        return None
    config = JsonObject.read(file)
    if config.data.get("_class_name") != "AutoencoderKL":
        return None
    said = read_vae_config(config, sdxl=model.family == "sdxl")
    not_in_shapes = {name: getattr(said, name) for name in ("norm_groups", *TAKEN_FROM_THE_MODEL)}
    return said if replace(found, **not_in_shapes) == said else None
