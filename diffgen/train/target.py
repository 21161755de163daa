"""What a run trains: the interface between the loop and each kind of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from diffgen.train.data import Batch
from diffgen.train.draws import Draws


class Report(Protocol):
    """What there is to say about the data; `fingerprint` changes when the data does."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def pictures(self) -> int: ...


class Data(Protocol):
    """A data set as endless training batches and a fixed held-out part."""

    @property
    def report(self) -> Report: ...

    def batches(
        self, *, batch_size: int, seed: int, rank: int, world: int, start: int, workers: int
    ) -> Iterator[Batch]: ...

    def validation(self, batch_size: int) -> Sequence[Batch]: ...


class Target(Protocol):
    """One kind of training.

    `module` holds exactly the networks that learn; called with what `inputs` makes of a batch it
    gives scalars by name, "loss" being the one to minimise. `export` writes what the run is for
    into an empty folder, and `preview` a picture of how far it is; both see averaged weights.
    """

    @property
    def module(self) -> nn.Module: ...
    def inputs(self, batch: Batch, draws: Draws) -> Any: ...
    def export(self, folder: Path, dtype: torch.dtype) -> None: ...
    def preview(self, model: Path, picture: Path, held_out: Sequence[Batch]) -> None: ...
