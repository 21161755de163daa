"""Read files of tiny decoders: diffusers' AutoencoderTiny, and the flat lists of TAESD."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffgen.errors import UnsupportedCheckpoint, WeightsError, some
from diffgen.models.config import ModelConfig
from diffgen.weights.files import LazyTensors, Shape, TensorInfo, open_tensors

if TYPE_CHECKING:
    import torch

    from diffgen.models.tiny import TinyConfig, TinyDecoder

KEY = re.compile(r"(?:(?:taesd_)?decoder\.)?(?:layers\.)?(?P<layer>\d+)\.(?P<rest>.+)")
OF_DECODERS = re.compile(r"(?:taesd_)?decoder\..+")
FILE = "diffusion_pytorch_model.safetensors"


def usual_decoder(model: ModelConfig) -> str:
    """The registered name of the tiny decoder of a model's family."""
    return "taesdxl" if model.is_xl else "taesd"


def load_decoder(
    path: Path, model: ModelConfig, device: torch.device, dtype: torch.dtype
) -> TinyDecoder:
    """The decoder in a file or folder, for the latents of a model.

    Raises WeightsError for a damaged file and UnsupportedCheckpoint for another kind of file or
    other latents.
    """
    from diffgen.device import send
    from diffgen.models.build import build_empty
    from diffgen.models.tiny import TinyDecoder

    path = path / FILE if path.is_dir() else path
    tensors = _renamed(open_tensors([path]))
    config = _config(path, {name: info.shape for name, info in tensors.infos.items()})
    _check_latents(path, config, model)
    decoder = build_empty(TinyDecoder, config)
    expected = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    wrong = [name for name in {**expected, **tensors.infos} if not _fits(name, expected, tensors)]
    if wrong:
        raise UnsupportedCheckpoint(
            f"{path} is no tiny decoder of TAESD's kind: {some(wrong)} is missing, unknown or of "
            "another shape"
        )
    state = {name: send(tensor, device, dtype) for name, tensor in tensors.read(expected)}
    decoder.load_state_dict(state, assign=True)
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: {name} has numbers that are not finite")
    return decoder.eval().requires_grad_(False)


def _renamed(tensors: LazyTensors) -> LazyTensors:
    """The decoder's tensors with layers counted from 0, as in diffusers.

    In a flat list the first layer limits the latents and has no weights, so that it counts from 1.
    """
    own = {key: info for key, info in tensors.infos.items() if OF_DECODERS.fullmatch(key)}
    found = [
        (match, info)
        for key, info in (own or tensors.infos).items()
        if (match := KEY.fullmatch(key))
    ]
    first = min((int(match["layer"]) for match, _ in found), default=0)
    renamed: dict[str, TensorInfo] = {
        f"layers.{int(match['layer']) - first}.{match['rest']}": info for match, info in found
    }
    return LazyTensors(renamed)


def _config(path: Path, shapes: Mapping[str, Shape]) -> TinyConfig:
    """The config from the shapes. Raises UnsupportedCheckpoint."""
    from diffgen.models.tiny import TinyConfig

    first = shapes.get("layers.0.weight", ())
    if len(first) != 4:
        raise UnsupportedCheckpoint(f"{path} is no tiny decoder of TAESD's kind")
    numbers = [int(name.split(".")[1]) for name in shapes]
    blocks, count = [], 0
    for layer in range(2, max(numbers) + 1):
        if f"layers.{layer}.conv.0.weight" in shapes:
            count += 1
        elif f"layers.{layer}.weight" in shapes:
            blocks.append(count)
            count = 0
    return replace(TinyConfig(), latent_channels=first[1], width=first[0], blocks=tuple(blocks))


def _check_latents(path: Path, config: TinyConfig, model: ModelConfig) -> None:
    if model.vae is None:
        raise UnsupportedCheckpoint(f"{path}: this model has no latents to decode")
    if config.latent_channels != model.latent_channels:
        raise UnsupportedCheckpoint(
            f"{path} decodes latents of {config.latent_channels} channels, and this model's have "
            f"{model.latent_channels}"
        )
    if config.factor != model.factor:
        raise UnsupportedCheckpoint(
            f"{path} makes {config.factor} pixels of a latent, and this model's autoencoder "
            f"{model.factor}"
        )


def _fits(name: str, expected: Mapping[str, Shape], tensors: LazyTensors) -> bool:
    info = tensors.infos.get(name)
    return info is not None and expected.get(name) == info.shape
