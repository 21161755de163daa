"""Option types that commands share, and the small grammars behind them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diffgen.errors import UsageError

if TYPE_CHECKING:
    from diffgen.weights.adapters.lora import LoraRef

Prompts = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT...", help="What to draw.", show_default=False)
]
PromptFile = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="FILE", help="One prompt a line, # for comments; - reads stdin."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="NAME|PATH",
        help="A model's name, .safetensors file or folder [default: storybook].",
    ),
]
Vae = Annotated[
    str | None,
    typer.Option(
        "--vae",
        metavar="PATH",
        help="An autoencoder to use instead of the model's: a .safetensors file or folder.",
    ),
]
PredictionType = Annotated[
    Literal["eps", "v", "sample"] | None,
    typer.Option(
        "--prediction", help="What the model predicts, where its files say wrong or nothing."
    ),
]
ZeroSnr = Annotated[
    bool | None,
    typer.Option(
        "--zero-snr/--no-zero-snr",
        help="Whether it was trained with zero terminal SNR [default: as its files say].",
        show_default=False,
    ),
]
ClipSkip = Annotated[
    int | None,
    typer.Option(
        "--clip-skip",
        metavar="N",
        help="Layer of the text encoder to read, from the end: 1 the last [default: the model's].",
        show_default=False,
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:WEIGHT]",
        help="A LoRA to merge into the model, as much as WEIGHT says [default: 1]; repeatable.",
    ),
]
Negative = Annotated[
    str | None, typer.Option("-n", "--negative", metavar="TEXT", help="What not to draw.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Sampler steps [default: the model's].")]
Guidance = Annotated[
    float | None,
    typer.Option(
        "-g", "--guidance", help="Guidance scale; 1 or less is none [default: the model's]."
    ),
]
GuidanceRescale = Annotated[
    float,
    typer.Option("--guidance-rescale", help="Tame over-exposure by guidance, 0 to 1."),
]
GuidanceInterval = Annotated[
    str | None,
    typer.Option(
        "--guidance-interval", metavar="LOW,HIGH", help="Guide only between these noise levels."
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "-s",
        "--sampler",
        metavar="NAME",
        help="See `diffgen samplers`; other programs' names work [default: the model's].",
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help="Spacing of the steps: karras, trailing, ... [default: the model's].",
    ),
]
Sigmas = Annotated[
    str | None,
    typer.Option("--sigmas", metavar="LIST", help="Explicit noise levels, descending: 14.6,5,1."),
]
Timesteps = Annotated[
    str | None,
    typer.Option("--timesteps", metavar="LIST", help="Explicit timesteps: 999,650,300."),
]
Rho = Annotated[
    float | None,
    typer.Option("--rho", help="Curvature of karras (7) and polyexponential (1) schedules."),
]
Eta = Annotated[
    float | None,
    typer.Option(
        "--eta", help="How stochastic the sampler is, where it can be [default: its own]."
    ),
]
Churn = Annotated[
    float | None, typer.Option("--s-churn", help="Noise added before each step (euler, heun).")
]

Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=1024,
        help="Threads on the CPU [default: one a core].",
        show_default=False,
    ),
]


Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse prompts in other programs' syntax: (x:1.2), <lora:...>, {a|b}, ..."
    ),
]


def parse_lora(text: str) -> LoraRef:
    """`FILE` or `FILE:WEIGHT`. Raises UsageError for no such file or no such number."""
    from diffgen.weights.adapters.lora import LoraRef

    name, colon, number = text.rpartition(":")
    if not colon or Path(text).expanduser().is_file():
        name, number = text, "1"
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"--lora: there is no file {path}")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageError(f'--lora {text}: the weight "{number}" is not a number')
    return LoraRef(path, weight)


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """A comma-separated list of numbers. Raises UsageError naming the option and the word."""
    if text is None:
        return None
    numbers = []
    for word in text.split(","):
        try:
            numbers.append(float(word))
        except ValueError:
            raise UsageError(f'{option}: "{word.strip()}" is not a number') from None
    return tuple(numbers)


def parse_interval(option: str, text: str | None) -> tuple[float, float]:
    """`LOW,HIGH`, either end may be left out. Raises UsageError."""
    if text is None:
        return (0.0, math.inf)
    low, comma, high = text.partition(",")
    if not comma:
        raise UsageError(f"{option} takes LOW,HIGH, for example 0.3,5")
    ends = parse_numbers(option, f"{low.strip() or 0},{high.strip() or math.inf}")
    assert ends is not None
    return ends[0], ends[1]
