"""The parts of a training target, as the loop uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffgen.text.tokenizer import Tokenizer
from diffgen.train.data.dataset import Batch
from diffgen.train.dist import World
from diffgen.train.draws import Draws


class Report(Protocol):
    """A summary of the data; `fingerprint` is a hash of its content."""

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

    `failed` are the pictures found damaged in decoding, here or by `mark_damaged`.
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
    """Levels (B, 3, H, W) to latents (B, C, h, w); the hash is that of the autoencoder."""

    def encode(self, levels: Tensor) -> Tensor: ...
    def autoencoder_hash(self) -> str: ...


class Discriminator(Protocol):
    """A network that learns against the module, with its own optimizer and state.

    `begin` is called before the batches of each step, counted from 0. `learn` runs after the module
    has learned and returns scalars under the same names in every step, averaged over processes.
    """

    def begin(self, step: int, world: World) -> None: ...
    def learn(self, rate: float) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Inputs(Protocol):
    """Turn a batch into the argument of the module; `draws` are all the randomness."""

    def __call__(self, batch: Batch, draws: Draws) -> Any: ...


class Exporter(Protocol):
    """Write the result of the run into an empty folder, from averaged weights."""

    def __call__(self, folder: Path, dtype: torch.dtype) -> None: ...


class Previewer(Protocol):
    """Draw a picture of the progress with the exported `model`."""

    def __call__(self, model: Path, picture: Path, held_out: Iterator[Batch]) -> None: ...


def nothing() -> None:
    """The no-op that follows a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of training, made of parts.

    `module` holds exactly what learns; called with what `inputs` makes of a batch it returns
    scalars by name, of which "loss" is minimised. `stepped` is called after each step in which the
    module has learned. `tokenizers` read the captions; empty where captions do not matter.
    `latent_encoder` fills the cache of latents; None where the module learns from pixels.
    """

    module: nn.Module
    inputs: Inputs
    export: Exporter
    preview: Previewer
    tokenizers: tuple[Tokenizer, ...] = ()
    latent_encoder: LatentEncoder | None = None
    discriminator: Discriminator | None = None
    stepped: Callable[[], None] = nothing
