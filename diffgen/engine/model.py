"""A model opened but not loaded: enough to check a request against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from diffgen.engine.request import GeneratePlan, GenerateRequest
from diffgen.settings.groups import DEFAULT_MODEL, Source
from diffgen.types import LoraRef, Prediction
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.finding import resolve
from diffgen.weights.registry import ModelEntry


@dataclass(frozen=True, slots=True)
class Model:
    """A named checkpoint, what its makers recommend and the LoRAs that are part of it, if any.

    `vae`, `prediction` and `zero_snr` are what was taken instead of its own.
    """

    name: str
    checkpoint: Checkpoint
    entry: ModelEntry | None = None
    loras: tuple[LoraRef, ...] = ()
    vae: Path | None = None
    prediction: Prediction | None = None
    zero_snr: bool | None = None

    @classmethod
    def open(
        cls,
        source: str | Path = DEFAULT_MODEL,
        *,
        vae: Path | None = None,
        prediction: Prediction | None = None,
        zero_snr: bool | None = None,
    ) -> Self:
        """Find a model by name or path and read its configs and headers.

        `vae` is an autoencoder to use with it, `prediction` what its U-Net predicts and
        `zero_snr` whether it was trained with zero terminal SNR, where its files do not say or are
        wrong. Raises UsageError for an unknown name or a path where
        nothing is, WeightsError or ConfigError for a damaged model.
        """
        ref = resolve(str(source))
        loras = (LoraRef(ref.lora),) if ref.lora else ()
        checkpoint = Checkpoint.open(ref.path, vae=vae, prediction=prediction, zero_snr=zero_snr)
        return cls(ref.name, checkpoint, ref.entry, loras, vae, prediction, zero_snr)

    @classmethod
    def open_source(cls, source: Source) -> Self:
        """The same from settings."""
        return cls.open(
            source.model, vae=source.vae, prediction=source.prediction, zero_snr=source.zero_snr
        )

    def plan(self, request: GenerateRequest) -> GeneratePlan:
        """The request with this model's defaults. Raises UsageError where it does not fit."""
        return GeneratePlan.make(request, self.checkpoint.config, self.entry)
