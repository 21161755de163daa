"""Write a trained text-to-image model as a folder in diffusers layout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from diffgen.models.config import ModelConfig
from diffgen.models.vae import IdentityAutoencoder
from diffgen.train.export import save_component
from diffgen.train.targets.networks import Start
from diffgen.types import TEXT_ENCODERS
from diffgen.weights.diffusers.copying import copy_configs, copy_vocabulary
from diffgen.weights.diffusers.layout import write_model_configs

_log = logging.getLogger("diffgen")
TOKENIZERS = ("tokenizer", "tokenizer_2")


class FolderExporter:
    """Writes all networks of a model, with the configs of its base or new ones.

    `amend` changes the configs of the base into those of the networks.
    """

    def __init__(
        self, start: Start, amend: Callable[[Path, ModelConfig], None] | None = None
    ) -> None:
        self.start, self.networks, self.amend = start, start.networks, amend

    def check(self) -> None:
        """Raise ConfigError, before any training, for networks that the layout cannot hold."""
        with TemporaryDirectory() as folder:
            self._write_configs(Path(folder))
        skip = self.networks.config.clip_skip
        if skip and self.start.base and self.start.base.is_file():
            _log.warning("a model folder cannot say so: draw with --clip-skip %d", skip)

    def __call__(self, folder: Path, dtype: torch.dtype) -> None:
        """Write configs, vocabularies and weights."""
        networks = self.networks
        self._write_configs(folder)
        save_component(folder, "unet", networks.unet, dtype)
        if not isinstance(networks.vae, IdentityAutoencoder):
            save_component(folder, "vae", networks.vae, dtype)
        for name, encoder in zip(TEXT_ENCODERS, networks.encoders, strict=False):
            save_component(folder, name, encoder, dtype)

    def _write_configs(self, folder: Path) -> None:
        if self.start.base and self.start.base.is_dir():
            copy_configs(self.start.base, folder, self.networks.config)
        else:
            self._new_configs(folder)
        if self.amend:
            self.amend(folder, self.networks.config)

    def _new_configs(self, folder: Path) -> None:
        """Those of a new model, or of one that was a single file and has none to copy."""
        config, tokenizers = self.networks.config, self.networks.tokenizers
        # A folder keeps the padding with the vocabulary.
        text = tuple(replace(encoder, pad=None) for encoder in config.text)
        tokens = [(tokenizer.end, tokenizer.pad) for tokenizer in tokenizers]
        write_model_configs(folder, replace(config, text=text), tokens)
        parts = zip(TOKENIZERS, self.start.vocabularies, tokenizers, config.text, strict=False)
        for name, vocabulary, tokenizer, encoder in parts:
            room = tokenizer.max_tokens
            copy_vocabulary(vocabulary, folder / name, max_tokens=room, pad=encoder.pad)
