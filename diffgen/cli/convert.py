"""`diffgen convert`: another layout or number format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffgen.cli.console import logged_notes, print_json, print_line, print_result
from diffgen.cli.progress import progress
from diffgen.cli.signals import Stopped
from diffgen.cli.signature import with_settings
from diffgen.errors import in_bytes
from diffgen.files import expanded
from diffgen.settings.converting import Converting
from diffgen.settings.output import Talk

if TYPE_CHECKING:
    from diffgen.weights.convert import Conversion, Converted


@with_settings(Converting, Talk, without=["progress"])
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A file, a model's folder or a name.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="A .safetensors file, or else a folder to make.")
    ],
    *,
    given: dict[str, Any],
) -> None:
    """Write a model in another layout or number format, and compare what was written.

    A .safetensors file gets the names of LDM or SGM, a folder those of diffusers. Files of pickles
    (.ckpt, .pt, .bin) are read here and nowhere else, and nothing in them is run.
    """
    from diffgen.weights.convert import Conversion
    from diffgen.weights.finding import resolve

    asked, talk = Converting.of(given), Talk.of(given)
    made = _converted(
        Conversion(
            source=source,
            target=expanded(target),
            dtype=asked.dtype,
            ema=asked.ema,
            loras=asked.loras,
            vae=asked.vae,
            base=resolve(asked.base).path if asked.base else None,
            overwrite=asked.overwrite,
        ),
        talk,
    )
    if asked.as_json:
        print_json({"path": str(made.path), "tensors": made.tensors, "size": made.size})
        return
    print_result(str(made.path))
    if not talk.quiet:
        print_line(f"{made.tensors} tensors, {in_bytes(made.size)}, read back and compared")


def _converted(conversion: Conversion, talk: Talk) -> Converted:
    from diffgen.weights.convert import convert as write

    with logged_notes(talk.verbose), progress(quiet=talk.quiet) as display:
        try:
            return write(conversion, display.update)
        except KeyboardInterrupt as stop:
            raise Stopped(stop, "; nothing was written") from stop
