"""The command line of `generate` that makes a cell's picture."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

from diffgen.bench.request import SweepRequest
from diffgen.bench.results import Cell
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.settings.model import Adapters, Source
from diffgen.settings.picture import Size
from diffgen.settings.prompting import Prompting
from diffgen.settings.running import Machine
from diffgen.settings.sampling import Guidance, Sampling
from diffgen.settings.setting import words


def generate_command(request: SweepRequest, cell: Cell) -> str:
    """`diffgen generate PROMPT ...` for the first prompt and seed, quoted for a POSIX shell.

    It includes all settings of the sweep that change a picture; those of the size only if they were
    given.
    """
    request = request.at(cell.at.items())
    scale: Any = cell.settings["guidance"]
    sampler: Any = cell.sampler  # a name of diffgen's, from its results
    schedule: Any = cell.schedule
    eta = request.eta if "eta" in SAMPLERS[sampler].options else None
    options = [
        *("--model", request.model, *words(replace(request.part(Source), model=Source.model))),
        *words(
            Sampling(
                sampler=sampler, schedule=schedule, steps=cell.steps, eta=eta, fast=request.fast
            )
        ),
        *words(replace(request.part(Guidance), guidance_scale=scale)),
        *words(request.part(Adapters)),
        *words(request.part(Prompting)),
        *words(request.part(Size)),
        *("--seed", str(request.seeds[0])),
        *words(request.part(Machine)),
    ]
    prompt = request.prompts[0]
    return shlex.join(
        ["diffgen", "generate", *options, *(["--"] if prompt.startswith("-") else []), prompt]
    )
