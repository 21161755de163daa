"""Which network reads which component of a model."""

from __future__ import annotations

from torch import nn

from diffgen.models.build import build_empty
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Component


def unet_of(config: ModelConfig) -> UNet:
    """The network that a model samples with, its weights not yet those of anything."""
    return UNet(config.unet)


def empty_network(config: ModelConfig, component: Component) -> nn.Module:
    """The network of a component, without memory for its weights."""
    if component == "unet":
        return build_empty(unet_of, config)
    if component == "vae":
        assert config.vae is not None
        return build_empty(Autoencoder, config.vae)
    index = ("text_encoder", "text_encoder_2").index(component)
    return build_empty(ClipTextModel, config.text[index])


def expected_shapes(config: ModelConfig, component: Component) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a component has."""
    state = empty_network(config, component).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
