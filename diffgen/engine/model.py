"""A model opened but not loaded: enough to check a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from diffgen.engine.plan import GeneratePlan
from diffgen.engine.refining import plan_refined
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.files import expanded
from diffgen.models.config import ModelConfig
from diffgen.settings.model import DEFAULT_MODEL, Source
from diffgen.types import LoraRef, Prediction
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.few_steps import with_lora
from diffgen.weights.finding import find_file, resolve
from diffgen.weights.registry import ModelEntry

TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Model:
    """A named checkpoint with its recommended settings and its own LoRAs.

    `vae`, `prediction`, `zero_snr` and `shift` override the checkpoint's; `base` completes a file
    that holds only a U-Net; `decoder` is a tiny decoder.
    """

    name: str
    checkpoint: Checkpoint
    entry: ModelEntry | None = None
    loras: tuple[LoraRef, ...] = ()
    vae: Path | None = None
    prediction: Prediction | None = None
    zero_snr: bool | None = None
    shift: float | None = None
    base: Path | None = None
    decoder: Path | None = None

    @classmethod
    def open(
        cls,
        source: str | Path = DEFAULT_MODEL,
        *,
        vae: Path | None = None,
        prediction: Prediction | None = None,
        zero_snr: bool | None = None,
        shift: float | None = None,
        base: str | Path | None = None,
        probe: bool = False,
        decoder: str | Path | None = None,
    ) -> Self:
        """Find a model by name or path and read its configs and headers.

        `vae` replaces its autoencoder. `prediction`, `zero_snr` (trained with zero terminal SNR)
        and `shift` (of a flow) override what its files say; `probe` finds the prediction by one
        evaluation of the U-Net. `base` names a model that completes a file of a U-Net. `decoder` is
        the file or name of a tiny decoder, or `tiny` for the family's usual one. Raises UsageError
        for an unknown name or path or an unclear probe, WeightsError or ConfigError for a damaged
        model.
        """
        if probe and prediction:
            raise UsageError("--prediction says what --probe would find out; give one of them")
        ref = resolve(str(source))
        loras = (LoraRef(ref.lora),) if ref.lora else ()
        rest = None if base is None else resolve(str(base)).path
        checkpoint = Checkpoint.open(
            ref.path, vae=vae, prediction=prediction, zero_snr=zero_snr, shift=shift, base=rest
        )
        if probe:
            from diffgen.engine.probe import probe as probed

            prediction = probed(checkpoint)
            checkpoint = Checkpoint.open(
                ref.path, vae=vae, prediction=prediction, zero_snr=zero_snr, base=rest
            )
        tiny = None if decoder is None else _find_decoder(str(decoder), checkpoint.config)
        return cls(
            ref.name, checkpoint, ref.entry, loras, vae, prediction, zero_snr, shift, rest, tiny
        )

    @classmethod
    def open_source(cls, source: Source) -> Self:
        """Open a model by its settings."""
        return cls.open(
            source.model,
            vae=expanded(source.vae) if source.vae else None,
            prediction=source.prediction,
            zero_snr=source.zero_snr,
            shift=source.shift,
            base=source.base,
            probe=source.probe,
            decoder=source.decoder,
        )

    @classmethod
    def of(cls, source: str | Path | Source | Model) -> Model:
        """A model from any way to name one. Raises what `open` raises."""
        if isinstance(source, Source):
            return cls.open_source(source)
        return source if isinstance(source, Model) else cls.open(source)

    def sampled_with(self, loras: Sequence[LoraRef]) -> Self:
        """The model sampled as the first LoRA of few steps among these needs it, which is said.

        Raises WeightsError.
        """
        for lora in filter(lambda lora: lora.strength("unet", ""), loras):
            config = with_lora(self.checkpoint.config, lora.path)
            if config is not self.checkpoint.config:
                checkpoint = replace(self.checkpoint, config=config)
                # What its makers recommend is for the model alone.
                entry = self.entry and replace(
                    self.entry, steps=None, sampler=None, schedule=None, guidance_scale=None
                )
                return replace(self, checkpoint=checkpoint, entry=entry)
        return self

    def plan(self, request: GenerateRequest) -> GeneratePlan:
        """The request with this model's defaults. Raises UsageError if it does not fit."""
        config = self.checkpoint.config
        if request.refiner is None:
            return GeneratePlan.make(request, config, self.entry)
        return plan_refined(request, self, Model.open(request.refiner))


def _find_decoder(name: str, config: ModelConfig) -> Path:
    if name == TINY:
        name = "taesdxl" if config.is_xl else "taesd"
    return find_file(name, "decoder", option="--decoder")
