"""What users may choose on the command line of `train`; a recipe's own keys are in `diffgen.train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from diffgen.settings.grammar import as_typed, parse_path
from diffgen.settings.model import Overrides
from diffgen.settings.setting import Group, Setting


@dataclass(frozen=True, kw_only=True)
class QuickLora(Group):
    """A LoRA without a recipe."""

    panel: ClassVar[str] = "Without a recipe"

    lora: Annotated[bool, Setting("--lora", "Adapt MODEL to the pictures of --data")] = False
    data: Annotated[
        str | None,
        Setting(
            "--data",
            "Pictures with captions beside them",
            "DIR",
            peers="train-data-dir instance-data-dir dataset data-dir train-dir images image-dir "
            "data-path",
        ),
    ] = None
    caption: Annotated[
        str | None, Setting("--caption", "The caption of the pictures that have none", "TEXT")
    ] = None
    model: Annotated[
        str | None,
        Setting(
            "-m --model",
            "The model that --lora adapts",
            "NAME|PATH",
            peers="pretrained-model-name-or-path base-model base ckpt checkpoint model-path",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class QuickOverrides(Overrides):
    """What is taken instead of what the files of that model say."""

    panel: ClassVar[str] = "Without a recipe"


@dataclass(frozen=True, kw_only=True)
class Training(Group):
    """The run itself."""

    panel: ClassVar[str] = "Run"

    assignments: Annotated[
        tuple[str, ...],
        Setting(
            "--set",
            "Override a key of the recipe: run.steps=100; repeatable",
            "KEY=VALUE",
            parse=as_typed,
            repeat=True,
        ),
    ] = ()
    output: Annotated[
        Path | None,
        Setting(
            "-o --output",
            "The run's folder [default: runs/NAME], or a LoRA's .safetensors file",
            "DIR|FILE",
            parse=parse_path,
            peers="output-dir out outdir output-name logdir output-path",
        ),
    ] = None
    resume: Annotated[
        bool,
        Setting(
            "--resume",
            "Go on from the last checkpoint in the folder",
            peers="resume-from-checkpoint continue resume-from",
        ),
    ] = False
    dry_run: Annotated[
        bool, Setting("--dry-run", "Check it all, measure time and memory, train nothing")
    ] = False
