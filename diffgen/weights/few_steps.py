"""Models distilled to few steps, recognised by a file's name, modelspec title or SHA-256.

Their tensors do not tell: sampled as their base they give grey or burnt pictures. The numbers are
those of the makers' model cards.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffgen.models.config import ModelConfig
from diffgen.types import Prediction, SamplerName, SpacingName
from diffgen.weights.files import read_metadata
from diffgen.weights.hashes import sha256
from diffgen.weights.reading import opened, stamp
from diffgen.weights.registry import read_registry, registry_path

logger = logging.getLogger("diffgen")

STEPS = re.compile(r"(\d+) ?steps?\b")
TITLES = ("modelspec.title", "ss_output_name")
UNNAMED = ("pytorch_lora_weights", "adapter_model")  # as diffusers and PEFT call every LoRA
DISTILLED_SIZE = 64  # latents of SD-Turbo and SDXL-Turbo, which draw 512 pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FewSteps:
    """How to sample a kind of distilled model; a name may state another number of `steps`."""

    name: str
    pattern: str
    sampler: SamplerName
    spacing: SpacingName
    steps: int
    guidance: float = 1.0
    prediction: Prediction | None = None
    sample_size: int | None = None
    common: bool = False  # styles have the word in their names, too


# The first match in a lower-cased name with punctuation as blanks counts.
KINDS = (
    FewSteps(
        name="SDXL-Lightning that predicts x0",
        pattern=r"lightning 1 ?step.* x0",
        sampler="euler",
        spacing="trailing",
        steps=1,
        prediction="sample",
    ),
    FewSteps(
        name="SDXL-Lightning",
        pattern="lightning",
        sampler="euler",
        spacing="trailing",
        steps=4,
        common=True,
    ),
    FewSteps(
        name="Hyper-SD with guidance",
        pattern=r"hyper ?sd.*\bcfg\b",
        sampler="ddim",
        spacing="trailing",
        steps=8,
        guidance=5.0,
    ),
    FewSteps(name="Hyper-SD", pattern=r"hyper ?sd", sampler="ddim", spacing="trailing", steps=8),
    FewSteps(
        name="Stable Diffusion Turbo",
        pattern=r"\b(sd|sdxl|sd xl|stable diffusion xl) ?turbo\b",
        sampler="euler",
        spacing="trailing",
        steps=1,
        sample_size=DISTILLED_SIZE,
    ),
    FewSteps(
        name="a Turbo fine-tune",
        pattern="turbo",
        sampler="dpmpp_sde",
        spacing="karras",
        steps=6,
        guidance=2.0,
        common=True,
    ),
    FewSteps(name="DMD2", pattern=r"\bdmd2?\b", sampler="lcm", spacing="lcm", steps=4),
    FewSteps(
        name="a latent consistency model", pattern=r"\blcm\b", sampler="lcm", spacing="lcm", steps=4
    ),
)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower())


def known_kind(names: Iterable[str]) -> FewSteps | None:
    """The kind that one of the names matches, with its number of steps."""
    plain = [_plain(name) for name in names]
    for kind in KINDS:
        for name in plain:
            if re.search(kind.pattern, name):
                told = STEPS.search(name)
                return replace(kind, steps=int(told[1])) if told and int(told[1]) else kind
    return None


def lora_names(file: Path) -> list[str]:
    """The names of a LoRA file that tell it for one that makes its model draw in few steps.

    A word such as "lightning" counts where the name has a number of steps. Raises WeightsError.
    """
    metadata = read_metadata(file)
    folder = file.parent.name if file.stem in UNNAMED else ""
    names = [file.stem, folder, *(metadata.get(key, "") for key in TITLES)]
    names += published_names(file)
    return [
        name
        for name in names
        if (kind := known_kind([name])) and (not kind.common or STEPS.search(_plain(name)))
    ]


def with_lora(config: ModelConfig, file: Path) -> ModelConfig:
    """The config with the sampling that a LoRA of few steps needs, logged as a warning.

    Raises WeightsError.
    """
    kept = {"prediction": config.schedule.prediction}
    return (
        as_distilled(config, lora_names(file), kept, file.name) if config.steps is None else config
    )


def published_names(file: Path) -> Iterator[str]:
    """The names under which this very file is published, of models that are drawn in few steps.

    It is hashed only where one of those has its size to the byte.
    """
    size = file.stat().st_size
    for name, entry in read_registry(registry_path()).items():
        for known in entry.files:
            if entry.steps and known.sha256 and known.size == size and _is(file, known.sha256):
                yield from (Path(known.path).stem, name)


def _is(file: Path, digits: str) -> bool:
    with opened(file) as stream:
        known = stamp(stream)
    return sha256(file, known) == digits


def as_distilled(
    config: ModelConfig,
    names: Iterable[str],
    asked: Mapping[str, Any],
    where: str,
    *,
    says_sampler: bool = False,
    file: Path | None = None,
) -> ModelConfig:
    """The config with the sampling of the kind that a name matches, logged as a warning.

    `asked` are the user's own claims, which win; `says_sampler` means that the model's files
    specify the sampling except for the steps and the guidance. Where no name matches, the SHA-256
    of `file` may.
    """
    kind, by = _recognised(names, file)
    if kind is None or not config.schedule.on_betas:
        return config
    kept = config.schedule
    # Leading steps are the base's; no model of few steps is sampled on them.
    if says_sampler and kept.spacing != "leading":
        kind = replace(kind, sampler=kept.sampler, spacing=kept.spacing, sample_size=None)
    else:
        kept = replace(kept, sampler=kind.sampler, spacing=kind.spacing, unsupported=None)
    if kind.prediction and "prediction" not in asked:
        kept = replace(kept, prediction=kind.prediction)
    unet = config.unet
    if kind.sample_size and unet.sample_size > kind.sample_size:
        unet = replace(unet, sample_size=kind.sample_size)
    guidance = None if config.embeds_guidance else kind.guidance
    _tell(where, by, kind, guidance)
    return replace(config, schedule=kept, unet=unet, steps=kind.steps, guidance=guidance)


def _recognised(names: Iterable[str], file: Path | None) -> tuple[FewSteps | None, str]:
    """The kind of a model, and what tells it: its name, or the hash of its file."""
    kind = known_kind(names)
    if kind is None and file is not None:
        return known_kind(published_names(file)), "sha256"
    return kind, "name"


def _tell(where: str, by: str, kind: FewSteps, guidance: float | None) -> None:
    logger.warning(
        "%s is taken for %s, by its %s: %s of %s on %s, guidance %s unless you say otherwise",
        where,
        kind.name,
        by,
        "1 step" if kind.steps == 1 else f"{kind.steps} steps",
        kind.sampler,
        kind.spacing,
        "as its family's" if guidance is None else f"{guidance:g}",
    )
