"""`diffgen convert`: another layout, another number format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffgen.cli.console import logged_notes, print_json, print_line, print_result
from diffgen.cli.progress import progress
from diffgen.cli.signals import Stopped


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A file, a model's folder or a name.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="A .safetensors file, or else a folder to make.")
    ],
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16", "fp8"] | None,
        typer.Option("--dtype", help="Number format [default: as it is]; fp8: of the U-Net."),
    ] = None,
    ema: Annotated[
        Literal["drop", "use", "keep"],
        typer.Option("--ema", help="What to do with averaged weights beside the U-Net's own."),
    ] = "drop",
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="FILE[:WEIGHT]", help="A LoRA to merge; repeatable."),
    ] = None,
    vae: Annotated[
        str | None, typer.Option("--vae", metavar="PATH", help="An autoencoder to put in.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="A model for what a U-Net alone lacks."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")
    ] = False,
) -> None:
    """Write a model in another layout or number format, and compare what was written.

    A .safetensors file gets the names of LDM or SGM, a folder those of diffusers. Files of pickles
    (.ckpt, .pt, .bin) are read here and nowhere else, and nothing in them is run.
    """
    from diffgen.engine.named_files import with_paths
    from diffgen.settings.loras import parse_lora
    from diffgen.weights.convert import Conversion
    from diffgen.weights.convert import convert as write
    from diffgen.weights.finding import resolve

    loras = [parse_lora("--lora", text) for text in lora or []]
    files = with_paths({"loras": loras, "vae": Path(vae).expanduser() if vae else None})
    asked = Conversion(
        source=source,
        target=Path(target).expanduser(),
        dtype=dtype,
        ema=ema,
        loras=files["loras"],
        vae=files["vae"],
        base=resolve(base).path if base else None,
        overwrite=overwrite,
    )
    with logged_notes(verbose=False), progress(quiet=quiet) as display:
        try:
            made = write(asked, display.update)
        except KeyboardInterrupt as stop:
            raise Stopped(stop, "; nothing was written") from stop
    if as_json:
        print_json({"path": str(made.path), "tensors": made.tensors, "size": made.size})
        return
    print_result(str(made.path))
    if not quiet:
        from diffgen.weights.sizes import in_bytes

        print_line(f"{made.tensors} tensors, {in_bytes(made.size)}, read back and compared")
