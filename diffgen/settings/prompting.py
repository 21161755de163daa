"""What to draw, and where prompts come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from diffgen.errors import UsageError
from diffgen.limits import MAX_LAYERS
from diffgen.settings.grammar import as_typed, parse_interpolation, parse_path
from diffgen.settings.setting import Group, Setting
from diffgen.types import PromptStyle

FRAMES = 12  # between two prompts, where nobody says how many


@dataclass(frozen=True, kw_only=True)
class Prompting(Group):
    """What to draw, beside the prompt itself."""

    panel: ClassVar[str] = "Prompt"

    negative: Annotated[
        str | None,
        Setting(
            "-n --negative",
            "What not to draw",
            "TEXT",
            peers="negative-prompt neg neg-prompt uc unconditional np",
        ),
    ] = None
    prompt_style: Annotated[
        PromptStyle | None,
        Setting(
            "--prompt-style",
            "Whose weights and long prompts: (x:1.2), BREAK, AND, [x:y:0.5], ... count in all but"
            " plain [default: a1111, or plain where the vocabulary is not CLIP's]",
        ),
    ] = None
    prompt_2: Annotated[
        str | None,
        Setting(
            "--prompt-2",
            "What the second text encoder of SDXL reads [default: the prompt]",
            "TEXT",
            peers="prompt2",
        ),
    ] = None
    negative_2: Annotated[
        str | None,
        Setting(
            "--negative-2",
            "The same for what not to draw [default: the negative]",
            "TEXT",
            peers="negative-prompt-2 negative-prompt2",
        ),
    ] = None
    clip_skip: Annotated[
        int | None,
        Setting(
            "--clip-skip",
            "Layer of the text encoder to read, from the end: 1 the last [default: the model's]",
            "N",
            low=1,
            high=MAX_LAYERS,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Reading(Group):
    """Where prompts come from, and how they are read."""

    panel: ClassVar[str] = "Prompt"

    texts: Annotated[
        tuple[str, ...],
        Setting(
            "-p --prompt",
            "A prompt; repeatable",
            "TEXT",
            parse=as_typed,
            repeat=True,
            peers="text caption positive-prompt",
        ),
    ] = ()
    prompt_file: Annotated[
        str | None,
        Setting(
            "--prompts",
            "A file of prompts: text with options in the line, .jsonl, .csv or .toml; - reads stdin",
            "FILE",
            peers="from-file prompts-file prompt-file file prompts-from-file",
        ),
    ] = None
    from_picture: Annotated[
        Path | None,
        Setting(
            "--from",
            "Make a picture of any program again, or ComfyUI's graph in a .json; options win",
            "FILE",
            parse=parse_path,
            peers="params-from config-from-metadata",
        ),
    ] = None
    wildcards: Annotated[
        Path | None,
        Setting("--wildcards", "Where the files of __wildcards__ are", "DIR", parse=parse_path),
    ] = None
    all_combinations: Annotated[
        bool, Setting("--all-combinations", "Every choice of {a|b} and __wildcards__, not one")
    ] = False
    strict: Annotated[
        bool,
        Setting(
            "--strict", "Refuse prompts in other programs' syntax: (x:1.2), <lora:...>, {a|b}, ..."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class Interpolating(Group):
    """Frames from one prompt to another, of one seed."""

    panel: ClassVar[str] = "Prompt"

    interpolate: Annotated[
        str | None,
        Setting(
            "--interpolate",
            "Frames from one prompt to another: numbered files, or an animation with -o FILE.gif or"
            " .webp",
            "A => B",
            parse=parse_interpolation,
        ),
    ] = None
    frames: Annotated[
        int | None,
        Setting(
            "--frames",
            f"How many, both ends included [default: {FRAMES}]",
            "N",
            low=2,
            high=10_000,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interpolate is None and self.frames is not None:
            raise UsageError("--frames is about --interpolate 'A => B'; give the two prompts")

    @property
    def records(self) -> list[dict[str, str]]:
        """What each frame asks for: a prompt, and how far the other one is."""
        if self.interpolate is None:
            return []
        first, other = (each.strip() for each in self.interpolate.split("=>"))
        count = self.frames or FRAMES
        shares = (i / (count - 1) for i in range(count))
        return [{"prompt": first, "towards": f"{other}:{share:.6g}"} for share in shares]
