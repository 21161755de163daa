"""What users may choose when a model is converted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from diffgen.settings.grammar import parse_path
from diffgen.settings.loras import parse_lora
from diffgen.settings.setting import Group, Setting
from diffgen.types import LoraRef


@dataclass(frozen=True, kw_only=True)
class Converting(Group):
    """The form of what is written, and what is put into it."""

    panel: ClassVar[str] = "Conversion"

    dtype: Annotated[
        Literal["fp32", "fp16", "bf16", "fp8"] | None,
        Setting("--dtype", "Number format; fp8: of the U-Net [default: as it is]"),
    ] = None
    ema: Annotated[
        Literal["drop", "use", "keep"],
        Setting("--ema", "What becomes of averaged weights beside the U-Net's own [default: drop]"),
    ] = "drop"
    loras: Annotated[
        tuple[LoraRef, ...],
        Setting(
            "--lora", "A LoRA to merge; repeatable", "FILE[:WEIGHT]", parse=parse_lora, repeat=True
        ),
    ] = ()
    vae: Annotated[
        Path | None, Setting("--vae", "An autoencoder to put in", "PATH", parse=parse_path)
    ] = None
    base: Annotated[
        str | None, Setting("--base", "A model for what a U-Net alone lacks", "NAME|PATH")
    ] = None
    overwrite: Annotated[bool, Setting("--overwrite", "Replace what is there")] = False
    as_json: Annotated[bool, Setting("--json", "Print one JSON object")] = False
