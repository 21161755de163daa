"""Where pictures go, in which form, and how much is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffgen.settings.setting import Group, Setting
from diffgen.types import PictureFormat, ProgressKind

DEFAULT_TEMPLATE = "{prompt:40}-{seed}.{ext}"


@dataclass(frozen=True, kw_only=True)
class Output(Group):
    """Where pictures go."""

    panel: ClassVar[str] = "Output"

    output: Annotated[
        str | None,
        Setting(
            "-o --output",
            "A .png, .jpg, .webp or .avif file, a folder, or - for stdout [default: this folder]",
            "FILE|DIR",
            peers="out outdir output-dir output-path outpath output-file save outfile "
            "output-folder dest output-name",
        ),
    ] = None
    template: Annotated[
        str,
        Setting(
            "--output-template",
            "Names in a folder, of {line}, {prompt}, {negative}, {seed}, {sampler}, {schedule}, "
            "{steps}, {guidance}, {width}, {height}, {model} and {ext}, as in {line:03}-{prompt:40} "
            f"[default: {DEFAULT_TEMPLATE}]",
            "TEXT",
            peers="output-name-template filename-pattern samples-filename-pattern",
        ),
    ] = DEFAULT_TEMPLATE
    form: Annotated[
        PictureFormat | None,
        Setting(
            "--format",
            "Kind of file [default: by the name, else png]",
            peers="image-format image-type output-format filetype",
        ),
    ] = None
    quality: Annotated[
        int | None,
        Setting(
            "--quality",
            "Of JPEG, WebP and AVIF [default: 90]",
            low=1,
            high=100,
            peers="imagequality",
        ),
    ] = None
    overwrite: Annotated[bool, Setting("--overwrite", "Replace pictures that exist")] = False
    skip_existing: Annotated[
        bool, Setting("--skip-existing", "Make no picture whose name is taken")
    ] = False
    metadata: Annotated[
        bool,
        Setting(
            "--metadata/--no-metadata", "Write into pictures how they were made [default: yes]"
        ),
    ] = True
    show: Annotated[
        bool, Setting("--show", "Draw each picture in the terminal, where stderr is one")
    ] = False
    preview_every: Annotated[
        int | None,
        Setting(
            "--preview-every",
            "Draw pictures in the terminal as they emerge, every N steps",
            "N",
            low=1,
            peers="preview-interval",
        ),
    ] = None
    as_json: Annotated[bool, Setting("--json", "Print one JSON object per picture")] = False


@dataclass(frozen=True, kw_only=True)
class Talk(Group):
    """How much is said on stderr."""

    panel: ClassVar[str] = "Output"

    progress: Annotated[
        ProgressKind,
        Setting("--progress", "How the run is reported on stderr [default: auto]"),
    ] = "auto"

    quiet: Annotated[
        bool,
        Setting("-q --quiet", "Say nothing but results, notes on what may be wrong and errors"),
    ] = False
    verbose: Annotated[bool, Setting("-v --verbose", "Say more, and show where errors arise")] = (
        False
    )
