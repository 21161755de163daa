"""Option types of `diffgen sample-steps`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from diffgen.bench.defaults import SAMPLERS, SCHEDULES, STEPS

Samplers = Annotated[
    str | None,
    typer.Option(
        "--samplers",
        metavar="LIST",
        help=f"Names, globs (dpmpp*), or all, deterministic, stochastic [default: {SAMPLERS}].",
    ),
]
Schedules = Annotated[
    str | None,
    typer.Option(
        "--schedules",
        metavar="LIST",
        help=f"Spacings; default is the sampler's on this model [default: {SCHEDULES}].",
    ),
]
Steps = Annotated[
    str | None,
    typer.Option("--steps", metavar="LIST", help=f"Step counts: 4,6,10-20:2 [default: {STEPS}]."),
]
Calls = Annotated[
    str | None,
    typer.Option(
        "--nfe",
        metavar="LIST",
        help="Instead of steps: network evaluations, of which each sampler makes the most.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", metavar="LIST", help="Seeds: 0-3 or 5,7 [default: 0-2]."),
]
Width = Annotated[
    int | None, typer.Option("-W", "--width", help="In pixels [default: the model's].")
]
Height = Annotated[
    int | None, typer.Option("-H", "--height", help="In pixels [default: the model's].")
]
ReferenceSteps = Annotated[
    int | None,
    typer.Option(
        "--reference", help="Steps of the converged solution, doubled where too few [default: 100]."
    ),
]
Repeats = Annotated[
    int | None,
    typer.Option("--repeats", help="Timed runs of each cell, at the least [default: 3]."),
]
Clip = Annotated[
    str | None,
    typer.Option("--clip", metavar="NAME|PATH", help="Also score pictures with this CLIP model."),
]
TargetPsnr = Annotated[
    float | None,
    typer.Option(
        "--target-psnr",
        metavar="DB",
        help="How close is close enough; the reference takes more steps for it [default: 30].",
    ),
]
BudgetSeconds = Annotated[
    float | None,
    typer.Option("--budget-seconds", help="The most a picture's sampling may take."),
]
CompareWith = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="FILE",
        help="Measure what this results.json measured, and fail if it got slower or worse.",
    ),
]
MaxSlower = Annotated[
    str,
    typer.Option(
        "--max-slower",
        metavar="PERCENT",
        help="Slowdown that --compare lets pass, besides any within the spread of both sweeps.",
    ),
]
MaxWorse = Annotated[
    str,
    typer.Option(
        "--max-worse", metavar="DB", help="Loss of PSNR that it lets pass, in the same way."
    ),
]
Trajectory = Annotated[
    str | None,
    typer.Option(
        "--trajectory",
        metavar="SAMPLER[:STEPS]",
        help="Also film the first picture as it emerges.",
    ),
]
Output = Annotated[
    str,
    typer.Option("-o", "--output", metavar="DIR", help="Where the report goes."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over; otherwise go on where DIR stopped.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option("--device", help="Where to run [default: auto]."),
]
Dtype = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"] | None,
    typer.Option("--dtype", help="Number format of the networks [default: auto, as generate]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON, not as a table.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but results and errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say more, and show where errors arise.")
]
