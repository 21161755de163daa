"""What users may choose of a sweep of `sample-steps`, beside what it shares with `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final

from diffgen.settings.axes import Axis, Intervals, Models, Stacks
from diffgen.settings.grammar import parse_path, parse_seeds
from diffgen.settings.model import Adapters, ModelName
from diffgen.settings.picture import MAX_SIDE
from diffgen.settings.running import Machine
from diffgen.settings.sampling import Guidance, Sampling
from diffgen.settings.setting import Group, Setting, rows

SAMPLERS: Final = "ddim,dpmpp_2m,unipc"
SCHEDULES: Final = "default,karras,beta,ays"
STEPS: Final = "5,7,10,14,20"
LEAST_REFERENCE = 4  # steps


@dataclass(frozen=True, kw_only=True)
class Axes(Group):
    """Which cells are measured; lists are kept as they are typed."""

    panel: ClassVar[str] = "Grid"

    samplers: Annotated[
        str,
        Setting(
            "--samplers",
            f"Names, globs (dpmpp*), or all, deterministic, stochastic [default: {SAMPLERS}]",
            "LIST",
        ),
    ] = SAMPLERS
    schedules: Annotated[
        str,
        Setting(
            "--schedules",
            f"Spacings; default is the sampler's on this model [default: {SCHEDULES}]",
            "LIST",
        ),
    ] = SCHEDULES
    steps: Annotated[
        str, Setting("--steps", f"Step counts: 4,6,10-20:2 [default: {STEPS}]", "LIST")
    ] = STEPS
    nfe: Annotated[
        str | None,
        Setting(
            "--nfe",
            "Instead of steps: network evaluations, of which each sampler makes the most",
            "LIST",
        ),
    ] = None
    seeds: Annotated[
        tuple[int, ...],
        Setting("--seeds", "Seeds: 0-3 or 5,7 [default: 0-2]", "LIST", parse=parse_seeds),
    ] = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Varied(Group):
    """What `generate` takes for a sampler's run besides, and a sweep for all of them."""

    panel: ClassVar[str] = "Grid"

    eta: Annotated[float | None, rows(Sampling)["eta"].setting] = None
    fast: Annotated[
        bool,
        Setting(
            "--fast", "Reuse some of what the network computes, off or on [default: off]", "WORD"
        ),
    ] = False


# Settings that take several values; their order is that of the parts of a cell's key. Models, LoRAs
# and guidance change the equation that is solved. How stochastic a sampler is does not: eta decides
# whether it solves that at all, or an equation with noise that has a limit of its own. What fast
# leaves out, and what a number format rounds away, are errors like that of few steps.
AXES: Final[Mapping[str, Axis]] = {
    axis.name: axis
    for axis in (
        Models.of(
            rows(ModelName)["model"],
            "model",
            solves=True,
            loads=True,
            flags="-m --models --model",
        ),
        Stacks.of(rows(Adapters)["loras"], "lora", solves=True, loads=True),
        Axis.of(rows(Guidance)["guidance_scale"], "guidance", solves=True),
        Axis.of(rows(Guidance)["guidance_rescale"], "rescale", solves=True),
        Axis.of(rows(Guidance)["guidance_method"], "method", solves=True),
        Axis.of(rows(Guidance)["pag"], "pag", solves=True),
        Intervals.of(rows(Guidance)["guidance_interval"], "interval", solves=True),
        Axis.of(rows(Varied)["eta"], "eta", solves=False),
        Axis.of(rows(Varied)["fast"], "fast", solves=False),
        Axis.of(rows(Machine)["dtype"], "dtype", solves=False, loads=True),
    )
}
BY_LABEL: Final[Mapping[str, Axis]] = {axis.label: axis for axis in AXES.values()}


@dataclass(frozen=True, kw_only=True)
class Measuring(Group):
    """How each cell is measured and judged."""

    panel: ClassVar[str] = "Measuring"

    reference: Annotated[
        int,
        Setting(
            "--reference",
            "Steps of the converged solution, doubled where too few [default: 100]",
            "N",
            low=LEAST_REFERENCE,
            high=MAX_SIDE,
        ),
    ] = 100
    repeats: Annotated[
        int,
        Setting(
            "--repeats", "Timed runs of each cell, at the least [default: 3]", "N", low=1, high=1000
        ),
    ] = 3
    clip: Annotated[
        str | None, Setting("--clip", "Also score pictures with this CLIP model", "NAME|PATH")
    ] = None
    target_psnr: Annotated[
        float | None,
        Setting(
            "--target-psnr",
            "How close is close enough; the reference takes more steps for it [default: 30]",
            "DB",
            low=0.01,
        ),
    ] = None
    budget_seconds: Annotated[
        float | None,
        Setting("--budget-seconds", "The most a picture's sampling may take", low=1e-6),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Comparing(Group):
    """What earlier results a sweep is held against."""

    panel: ClassVar[str] = "Comparing"

    compare: Annotated[
        Path | None,
        Setting(
            "--compare",
            "Measure what this results.json measured, and fail if it got slower or worse",
            "FILE",
            parse=parse_path,
        ),
    ] = None
    max_slower: Annotated[
        str,
        Setting(
            "--max-slower",
            "Slowdown that --compare lets pass, besides any within the spread of both sweeps "
            "[default: 10%]",
            "PERCENT",
        ),
    ] = "10%"
    max_worse: Annotated[
        str,
        Setting(
            "--max-worse", "Loss of PSNR that it lets pass, in the same way [default: 0.5dB]", "DB"
        ),
    ] = "0.5dB"


@dataclass(frozen=True, kw_only=True)
class Report(Group):
    """What is drawn, and where it goes."""

    panel: ClassVar[str] = "Output"

    trajectory: Annotated[
        str | None,
        Setting("--trajectory", "Also film the first picture as it emerges", "SAMPLER[:STEPS]"),
    ] = None
    output: Annotated[
        Path,
        Setting("-o --output", "Where the report goes [default: report]", "DIR", parse=parse_path),
    ] = Path("report")
    fresh: Annotated[bool, Setting("--fresh", "Start over; otherwise go on where DIR stopped")] = (
        False
    )
    as_json: Annotated[bool, Setting("--json", "Print the results as JSON, not as a table")] = False
