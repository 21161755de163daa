"""An autoencoder that comes by itself, to be used with somebody else's U-Net.

Importing this module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.jsonfile import JsonObject
from diffgen.models.config import ModelConfig, VaeConfig
from diffgen.weights import detect
from diffgen.weights.configs import read_vae_config
from diffgen.weights.files import LazyTensors, TensorInfo, open_tensors, read_header
from diffgen.weights.folder import weight_files
from diffgen.weights.keymap import FOLDER_RULES, to_canonical
from diffgen.weights.ldm import vae_rules

Infos = Mapping[str, TensorInfo]

# The autoencoder's tensors in a file, alone or in a whole model; not averages and losses.
IN_LDM = re.compile(r"(?:first_stage_model\.|vae\.)?((?:en|de)coder\..+|(?:post_)?quant_conv\..+)")
NAMED_BY_DIFFUSERS = "decoder.mid_block.resnets.0.conv1.weight"


def open_vae(path: Path, model: ModelConfig) -> tuple[VaeConfig, LazyTensors]:
    """The autoencoder at a path: a file, its folder in diffusers layout, or a whole model's.

    A file in LDM's names does not say how latents are scaled: that is taken from the model it is
    for; one in diffusers' names has its config.json beside it. Raises
    UsageError where there is nothing, WeightsError or ConfigError for damaged files and
    UnsupportedCheckpoint for what is no autoencoder of ours, or of other latents than the model's.
    """
    if not path.exists():
        raise UsageError(f"there is no autoencoder at {path}.")
    try:
        config, infos = _from_file(path, model) if path.is_file() else _from_folder(path, model)
        if config.latent_channels != model.unet.out_channels:
            raise UnsupportedCheckpoint(
                f"it has {config.latent_channels} latent channels, the model's U-Net "
                f"{model.unet.out_channels}"
            )
    except UnsupportedCheckpoint as error:
        reason = str(error).removesuffix(".")
        raise UnsupportedCheckpoint(f"{path} cannot be used as autoencoder: {reason}.") from error
    except (IndexError, ValueError) as error:  # a vector where all models have a matrix
        raise UnsupportedCheckpoint(
            f"{path} cannot be used as autoencoder: its tensors have other shapes than Stable "
            "Diffusion's"
        ) from error
    return config, LazyTensors(infos)


def _from_folder(path: Path, model: ModelConfig) -> tuple[VaeConfig, Infos]:
    folder = path / "vae" if (path / "vae").is_dir() else path
    return _named_by_diffusers(folder, weight_files(folder, "vae"), model)


def _named_by_diffusers(
    folder: Path, files: Sequence[Path], model: ModelConfig
) -> tuple[VaeConfig, Infos]:
    config = read_vae_config(JsonObject.read(folder / "config.json"), sdxl=model.family == "sdxl")
    return config, to_canonical(open_tensors(files).infos, FOLDER_RULES["vae"])


def _from_file(path: Path, model: ModelConfig) -> tuple[VaeConfig, Infos]:
    infos = read_header(path)
    if NAMED_BY_DIFFUSERS in infos:
        return _named_by_diffusers(path.parent, [path], model)
    found = {m[1]: info for key, info in infos.items() if (m := IN_LDM.fullmatch(key))}
    shapes = {key: info.shape for key, info in found.items()}
    config = detect.read_vae(shapes, "sdxl" if model.family == "sdxl" else "sd1")
    if own := model.vae:
        config = replace(
            config,
            scaling_factor=own.scaling_factor,
            shift_factor=own.shift_factor,
            latents_mean=own.latents_mean,
            latents_std=own.latents_std,
            force_upcast=own.force_upcast,
        )
    return config, to_canonical(found, vae_rules(config))
