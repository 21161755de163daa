"""What a run trains: the interface between the loop and each kind of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffgen.text.tokenizer import Tokenizer
from diffgen.train.data.dataset import Batch
from diffgen.train.dist import World
from diffgen.train.draws import Draws


class Report(Protocol):
    """What there is to say about the data; `fingerprint` changes when the data does."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def pictures(self) -> int: ...
    @property
    def held_out(self) -> int: ...
    @property
    def lines(self) -> list[str]: ...
    @property
    def remarks(self) -> dict[str, str]: ...


class Data(Protocol):
    """A data set as endless training batches and a fixed held-out part.

    `failed` are the pictures that this process, or one that told it, found damaged in decoding.
    """

    @property
    def report(self) -> Report: ...
    @property
    def failed(self) -> tuple[int, ...]: ...
    def mark_damaged(self, indices: Sequence[int]) -> None: ...

    def batches(
        self, *, batch_size: int, seed: int, rank: int, world: int, start: int, workers: int
    ) -> Iterator[Batch]: ...

    def validation(self, batch_size: int, *, rank: int, world: int) -> Iterator[Batch]: ...


class LatentEncoder(Protocol):
    """Pixels (B, 3, H, W) to latents (B, C, h, w); the hash is that of the autoencoder."""

    def encode(self, pixels: Tensor) -> Tensor: ...
    def autoencoder_hash(self) -> str: ...


class Opponent(Protocol):
    """What learns against the module, with weights, an optimizer and a state of its own.

    `begin` is told each step, counted from 0, before its batches; `learn`, after the module has
    learned from them, gives scalars by the same names in every step, averaged over processes.
    """

    def begin(self, step: int, world: World) -> None: ...
    def learn(self, rate: float) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Target(Protocol):
    """One kind of training.

    `module` holds exactly what learns; called with what `inputs` makes of a batch it gives scalars
    by name, "loss" being the one to minimise. `stepped` is called after each step in which the
    module has learned, for what follows it. `export` writes what the run is for into an empty
    folder, and `preview` a picture of how far it is; both see averaged weights. `tokenizers` read
    the captions: none where captions do not matter. `latent_encoder` fills the cache of latents:
    none where pixels are what is learned from. `opponent` learns beside the module, if any does.
    """

    @property
    def module(self) -> nn.Module: ...
    @property
    def tokenizers(self) -> Sequence[Tokenizer]: ...
    @property
    def latent_encoder(self) -> LatentEncoder | None: ...
    @property
    def opponent(self) -> Opponent | None: ...
    def inputs(self, batch: Batch, draws: Draws) -> Any: ...
    def stepped(self) -> None: ...
    def export(self, folder: Path, dtype: torch.dtype) -> None: ...
    def preview(self, model: Path, picture: Path, held_out: Iterator[Batch]) -> None: ...
