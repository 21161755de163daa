"""A model opened but not loaded: enough to check a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from diffgen.engine.plan import GeneratePlan
from diffgen.engine.refining import plan_refined
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.files import expanded
from diffgen.models.config import ModelConfig
from diffgen.settings.model import DEFAULT_MODEL, Source
from diffgen.types import LoraRef
from diffgen.weights.checkpoint import Checkpoint
from diffgen.weights.few_steps import with_lora
from diffgen.weights.finding import find_file, resolve
from diffgen.weights.registry import ModelEntry
from diffgen.weights.tiny import usual_decoder

TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Model:
    """A named checkpoint with its recommended settings and its own LoRAs.

    `vae`, `shift`, `base` and `decoder` are what the user has taken instead of the model's own, as
    in `Source`, with names resolved to paths.
    """

    name: str
    checkpoint: Checkpoint
    entry: ModelEntry | None = None
    loras: tuple[LoraRef, ...] = ()
    vae: Path | None = None
    shift: float | None = None
    base: Path | None = None
    decoder: Path | None = None

    @classmethod
    def open(cls, source: str | Path | Source = DEFAULT_MODEL) -> Self:
        """Find a model by name, path or settings, and read its configs and headers.

        Raises UsageError for an unknown name or path or an unclear probe, WeightsError or
        ConfigError for a damaged model.
        """
        asked = source if isinstance(source, Source) else Source(model=str(source))
        if asked.probe and asked.prediction:
            raise UsageError("--prediction says what --probe would find out; give one of them")
        vae = expanded(asked.vae) if asked.vae else None
        found = resolve(asked.model)
        base = None if asked.base is None else resolve(asked.base).path
        files = partial(Checkpoint.open, found.path, vae=vae, base=base, zero_snr=asked.zero_snr)
        checkpoint = files(prediction=asked.prediction, shift=asked.shift)
        if asked.probe:
            from diffgen.engine.probe import probe

            checkpoint = files(prediction=probe(checkpoint))
        return cls(
            found.name,
            checkpoint,
            found.entry,
            loras=(LoraRef(found.lora),) if found.lora else (),
            vae=vae,
            shift=asked.shift,
            base=base,
            decoder=_find_decoder(asked.decoder, checkpoint.config),
        )

    @classmethod
    def of(cls, source: str | Path | Source | Model) -> Model:
        """A model from any way to name one. Raises what `open` raises."""
        return source if isinstance(source, Model) else cls.open(source)

    def sampled_with(self, loras: Sequence[LoraRef]) -> Self:
        """The model sampled as the first LoRA of few steps among these needs it, which is said.

        Raises WeightsError.
        """
        for lora in filter(lambda lora: lora.strength("unet", "", ()), loras):
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


def _find_decoder(name: str | None, config: ModelConfig) -> Path | None:
    if name is None:
        return None
    return find_file(usual_decoder(config) if name == TINY else name, "decoder", option="--decoder")
