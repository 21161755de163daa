"""The command line of `generate` that makes a cell's picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from diffgen.bench.request import SweepRequest
from diffgen.bench.results import Cell


def generate_command(request: SweepRequest, cell: Cell) -> str:
    """`diffgen generate PROMPT ...` for the first prompt and seed, quoted for a POSIX shell.

    All settings of the sweep that change a picture are in it, those of the size only where they
    were asked for.
    """
    options: Mapping[str, object] = {
        "--model": request.model,
        "--vae": request.vae,
        "--prediction": request.prediction,
        "--clip-skip": request.clip_skip,
        "--sampler": cell.sampler,
        "--schedule": cell.schedule,
        "--steps": cell.steps,
        "--guidance": _number(cell.settings["guidance"]),
        "--negative": request.negative,
        "--width": request.width,
        "--height": request.height,
        "--seed": request.seeds[0],
        "--device": None if request.device == "auto" else request.device,
        "--dtype": None if request.dtype == "auto" else request.dtype,
    }
    words = ["diffgen", "generate"]
    if request.zero_snr is not None:
        words.append("--zero-snr" if request.zero_snr else "--no-zero-snr")
    for name, value in options.items():
        if value is not None:
            text = str(value)
            words += [f"{name}={text}"] if text.startswith("-") else [name, text]
    prompt = request.prompts[0]
    return shlex.join([*words, *(["--"] if prompt.startswith("-") else []), prompt])


def _number(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
