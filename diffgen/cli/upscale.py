"""`diffgen upscale`: redraw pictures at a larger size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffgen.cli.generate import PICTURES, making
from diffgen.cli.signature import with_settings
from diffgen.settings.editing import Editing
from diffgen.settings.output import Output, Talk
from diffgen.settings.prompting import Reading
from diffgen.settings.running import Machine, Running, Threads
from diffgen.settings.setting import rows


@with_settings(
    *(Reading, *PICTURES, Output, Running, Machine, Threads, Talk),
    without=(
        *(*rows(Editing), "width", "height", "prompt_file", "from_picture", "resume"),
        *("wildcards", "all_combinations", "grid"),
    ),
    configured=None,
    as_text=PICTURES,
)
def upscale(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures to make larger.")
    ],
    *,
    given: dict[str, Any],
) -> int:
    """Make pictures larger, and draw them again at that size.

    Each is enlarged by --hires [default: 2x] with --hires-upscaler, and drawn again at
    --hires-strength. Prompt, model and all else come from the picture itself where it says how it
    was made; options win.
    """
    from diffgen.batch.upscaling import open_upscaling

    with making(given, lambda: open_upscaling(files, given)) as (run, plans):
        for plan in plans:
            run.run(plan)
    return run.tally.exit_code
