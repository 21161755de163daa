"""Build and load the networks and tokenizers of an opened model, for the engine and the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from diffgen.device import Precision
from diffgen.models.build import AnyConfig, AnyModule, build_empty, unet_of
from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ModelConfig
from diffgen.models.unet import UNet
from diffgen.models.vae import AnyAutoencoder, Autoencoder, IdentityAutoencoder
from diffgen.text.tokenizer import Tokenizer, load_tokenizers
from diffgen.types import TEXT_ENCODERS, Component
from diffgen.weights.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Networks:
    """All networks of a text-to-image model; one tokenizer per text encoder."""

    config: ModelConfig
    unet: UNet
    vae: AnyAutoencoder
    encoders: tuple[ClipTextModel, ...]
    tokenizers: tuple[Tokenizer, ...]

    @property
    def adaptable(self) -> Mapping[Component, nn.Module]:
        """The networks that LoRAs change, by component."""
        return {"unet": self.unet, **dict(zip(TEXT_ENCODERS, self.encoders, strict=False))}


def load_networks(checkpoint: Checkpoint, device: torch.device, precision: Precision) -> Networks:
    """Load every network of a model. Raises WeightsError, and ConfigError for a vocabulary."""
    config = checkpoint.config
    encoders = tuple(
        load_network(ClipTextModel, text, checkpoint, name, device, precision.text)
        for text, name in zip(config.text, TEXT_ENCODERS, strict=False)
    )
    unet = load_network(unet_of, config, checkpoint, "unet", device, precision.unet)
    vae = load_vae(checkpoint, device, precision.vae)
    return Networks(
        config, unet, vae, encoders, load_tokenizers(checkpoint.tokenizers, config.text)
    )


def load_vae(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> AnyAutoencoder:
    """Load the autoencoder; the identity for a model of pixels. Raises WeightsError."""
    config = checkpoint.config.vae
    if config is None:
        return IdentityAutoencoder()
    return load_network(Autoencoder, config, checkpoint, "vae", device, dtype)


def load_network(
    kind: Callable[[AnyConfig], AnyModule],
    config: AnyConfig,
    checkpoint: Checkpoint,
    component: Component,
    device: torch.device,
    dtype: torch.dtype,
) -> AnyModule:
    """One network in inference mode, without gradients. Raises WeightsError."""
    module = build_empty(kind, config)
    checkpoint.load_into(component, module, dtype=dtype, device=device)
    return module.eval().requires_grad_(False)
