"""Batches as the networks of a text-to-image model read them: latents and text conditioning."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

from diffgen.device import send
from diffgen.engine.networks import Networks
from diffgen.models.vae import IdentityAutoencoder
from diffgen.train.data.dataset import Batch, as_pixels
from diffgen.train.draws import Draws
from diffgen.train.recipe.recipe import Recipe


class Latents:
    """Encodes pictures with a frozen autoencoder: for training, and for the cache of latents."""

    def __init__(self, recipe: Recipe, networks: Networks, device: torch.device) -> None:
        self.vae, self.config, self.device = networks.vae, networks.config.vae, device
        # Never in fp16, where some autoencoders overflow.
        self._in_bf16 = recipe.run.precision == "bf16"

    def of(self, batch: Batch, draws: Draws) -> Tensor:
        """Latents (B, C, h, w): z sampled given the pixels, as the autoencoder was trained.

        Cached latents are taken as they are.
        """
        if batch.latents is not None:
            return send(batch.latents, self.device)
        pixels = as_pixels(send(batch.whole_levels, self.device))
        if isinstance(self.vae, IdentityAutoencoder):
            return pixels
        mean, logvar = (moment.float() for moment in self.vae.encode(pixels))
        return self.vae.to_latents(mean + (0.5 * logvar).exp() * draws.normal(mean.shape[1:]))

    @torch.no_grad()
    def encode(self, levels: Tensor) -> Tensor:
        """Levels (B, 3, H, W) to latents (B, C, h, w) by the mean of z, for the cache."""
        pixels = as_pixels(send(levels, self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bf16):
            mean, _ = self.vae.encode(pixels)
        return self.vae.to_latents(mean.float())

    def autoencoder_hash(self) -> str:
        """A hash of the autoencoder, its config and the number format it computes in."""
        digest = blake2b(b"bf16" if self._in_bf16 else b"fp32", digest_size=16)
        digest.update(repr(self.config).encode())  # its scale, which no weight holds
        for tensor in self.vae.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()


def size_ids(batch: Batch, device: torch.device) -> Tensor:
    """Sizes and crops (B, 6) in pixels, as SDXL is told them."""
    return send(torch.tensor(batch.time_ids, dtype=torch.float32), device)
