"""Names of other programs for diffgen's options, beyond the aliases of the settings.

diffusers' scripts, CompVis', A1111, sd-scripts, sd.cpp. Keys are the options here; words are in
lower case, with hyphens, and without leading ones.
"""

from __future__ import annotations

from typing import Any

from diffgen.settings.editing import Editing, Enlarging, Refining, Varying
from diffgen.settings.model import Adapters, Source
from diffgen.settings.output import Output
from diffgen.settings.picture import Number, Size
from diffgen.settings.prompting import Prompting, Reading
from diffgen.settings.running import Machine, Threads
from diffgen.settings.sampling import Guidance, Sampling
from diffgen.settings.setting import each_row
from diffgen.settings.training import QuickLora, Training

_NAMES = {
    "--sampler, or --schedule for the spacing of steps": "scheduler schedulers",
    "--width and --height": "size resolution res image-size dimensions image-dimensions "
    "ar aspect aspect-ratio",
    "--lora FILE:WEIGHT": "lora-scale lora-weight network-mul lora-strength",
    "--prediction v": "v-parameterization v-pred v-prediction",
    "--dtype fp16": "fp16 half half-precision",
    "--dtype bf16": "bf16 bfloat16",
    "--dtype fp32": "fp32 full no-half full-precision",
    "--device cuda": "cuda gpu",
    "--device cpu": "cpu use-cpu",
    "--device mps": "mps",
}
_TRAINING = {
    "--set run.steps=N": "max-train-steps steps num-steps max-steps iterations",
    "--set run.batch_size=N": "train-batch-size batch-size b batch",
    "--set optimizer.lr=X": "learning-rate lr unet-lr",
    "--set lora.rank=N": "rank network-dim lora-rank r",
    "--set run.seed=N": "seed",
    "--set data.size=N": "resolution size image-size",
    "--set run.precision=bf16": "mixed-precision precision dtype fp16 bf16",
    "--set run.device=NAME": "device cuda gpu cpu",
    "--set run.gradient_checkpointing=true": "gradient-checkpointing",
    "the recipe's file, without an option": "config recipe config-file c f",
}


def _table(names: dict[str, str], *groups: Any) -> dict[str, str]:
    settings = {peer: f"--{row.word}" for row in each_row(*groups) for peer in row.foreign}
    return settings | {word: ours for ours, words in names.items() for word in words.split()}


OPTIONS = _table(
    _NAMES,
    *(Reading, Prompting, Size, Number, Sampling, Guidance, Source, Adapters),
    *(Editing, Enlarging, Varying, Refining),
    *(Output, Machine, Threads),
)
TRAINING = _table(_TRAINING, Training, QuickLora, Threads)
