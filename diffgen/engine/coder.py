"""Encode pictures to latents and decode latents, by a model's autoencoder."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffgen.device import memory_errors, release_memory
from diffgen.engine.finite import not_finite
from diffgen.engine.images import to_images
from diffgen.engine.networks import load_vae
from diffgen.errors import OutOfMemory
from diffgen.models.fast.inference import prepare
from diffgen.models.seamless import Edges
from diffgen.models.tiling import decode_tiled, encode_tiled
from diffgen.models.tiny import TinyDecoder
from diffgen.models.vae import AnyAutoencoder, Autoencoder
from diffgen.settings.editing import Axes
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.tiny import load_decoder

logger = logging.getLogger("diffgen")


class Coder:
    """An autoencoder on a device; falls back to float32 for good when half precision overflows.

    `strips` trades time for memory; what memory does not suffice for is done so in any case.
    `seamless` makes the decoder wrap around the edges.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        vae: AnyAutoencoder,
        device: torch.device,
        dtype: torch.dtype,
        *,
        decoder: Path | None = None,
    ) -> None:
        """`decoder` is the file of a tiny decoder to use instead. Raises as `load_decoder`."""
        self.vae, self.dtype = _prepared(vae), dtype
        self.strips = False
        self._too_large: dict[str, int] = {}  # numbers of what did not fit as a whole, by verb
        self._checkpoint, self._device, self._file = checkpoint, device, decoder
        self.tiny = self._load_tiny()
        self._edges = self._find_edges()

    def wrap(self, axes: Axes | None) -> None:
        """Set which edges of decoded pictures wrap around."""
        if self._edges:
            self._edges.wrap(axes)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to the mean of z (B, C, h, w) float32, unscaled.

        Raises DiffgenError for numbers that are not finite.
        """
        return self._run(pixels, self._encoder, "encod")

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents (B, C, h, w) to pictures. Raises DiffgenError for numbers that are not finite."""
        return to_images(self._run(latents, self._decoder, "decod"))

    def _run(
        self, given: Tensor, network: Callable[[bool], Callable[[Tensor], Tensor]], verb: str
    ) -> Tensor:
        made = self._fitted(given.to(self._device, self.dtype), network, verb)
        if not bool(torch.isfinite(made).all()) and self.dtype != torch.float32:
            logger.warning("the %ser overflowed in half precision; %sed again in fp32", verb, verb)
            self._reload()
            made = self._fitted(given.to(self._device), network, verb)
        if not bool(torch.isfinite(made).all()):
            raise not_finite(f"{verb}ing", self.dtype, self._checkpoint)
        return made.float()

    def _fitted(
        self, given: Tensor, network: Callable[[bool], Callable[[Tensor], Tensor]], verb: str
    ) -> Tensor:
        """As a whole, or in strips where they are asked for or memory runs out."""
        strips = self.strips or given.numel() >= self._too_large.get(verb, math.inf)
        try:
            with memory_errors():
                return network(strips)(given)
        except OutOfMemory:
            if strips or self.tiny or not isinstance(self.vae, Autoencoder):
                raise
        # Outside of the handler, whose traceback holds what filled the memory.
        self._too_large[verb] = given.numel()
        logger.warning(
            "out of memory while %sing as a whole; %sed again in strips, as --tile-vae does from "
            "the start",
            verb,
            verb,
        )
        release_memory()
        with memory_errors():
            return network(True)(given)

    def _encoder(self, strips: bool) -> Callable[[Tensor], Tensor]:
        vae = self.vae
        if strips and isinstance(vae, Autoencoder):
            return lambda pixels: encode_tiled(vae, pixels)[0]
        return lambda pixels: vae.encode(pixels)[0]

    def _decoder(self, strips: bool) -> Callable[[Tensor], Tensor]:
        if self.tiny:
            return self.tiny.decode
        if strips and isinstance(self.vae, Autoencoder) and self._edges:
            return partial(decode_tiled, self.vae, wraps="y" in (self._edges.axes or ""))
        return self.vae.decode

    def _reload(self) -> None:
        axes = self._edges.axes if self._edges else None
        self.dtype = torch.float32
        self.vae = _prepared(load_vae(self._checkpoint, self._device, self.dtype))
        self.tiny = self._load_tiny()
        self._edges = self._find_edges()
        self.wrap(axes)

    def _find_edges(self) -> Edges | None:
        decoder = self.tiny or (self.vae.decoder if isinstance(self.vae, Autoencoder) else None)
        return Edges(decoder) if decoder else None

    def _load_tiny(self) -> TinyDecoder | None:
        if self._file is None:
            return None
        tiny = load_decoder(self._file, self._checkpoint.config, self._device, self.dtype)
        prepare(tiny)
        return tiny


def _prepared(vae: AnyAutoencoder) -> AnyAutoencoder:
    if isinstance(vae, Autoencoder):
        prepare(vae)
    return vae
