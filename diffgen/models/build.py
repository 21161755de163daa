"""Build the networks of a model on the meta device, without memory for their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Component

AnyConfig = TypeVar("AnyConfig")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def build_empty(kind: Callable[[AnyConfig], AnyModule], config: AnyConfig) -> AnyModule:
    """The module of a config on the meta device, ready to get weights."""
    with torch.device("meta"), _NoInitialisation():
        return kind(config)


def unet_of(config: ModelConfig) -> UNet:
    """The denoising network of a model, without weights."""
    return UNet(config.unet)


def empty_network(config: ModelConfig, component: Component) -> nn.Module:
    """The network of a component, without weights."""
    if component == "unet":
        return build_empty(unet_of, config)
    if component == "vae":
        assert config.vae is not None
        return build_empty(Autoencoder, config.vae)
    index = ("text_encoder", "text_encoder_2").index(component)
    return build_empty(ClipTextModel, config.text[index])


class _NoInitialisation(TorchFunctionMode):
    """Turns every function of torch.nn.init into a no-op.

    The values would be replaced anyway, and a random one on the meta device makes torch import its
    compiler, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
