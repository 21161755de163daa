"""A user's request for pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffgen.errors import UsageError, shown
from diffgen.settings.editing import Editing, Enlarging, Refining, Varying
from diffgen.settings.picture import MAX_SEED, Number, Size
from diffgen.settings.prompting import Prompting
from diffgen.settings.sampling import Guidance, Sampling

MAX_PROMPT = 64 << 10  # bytes


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(
    Prompting, Size, Number, Sampling, Guidance, Editing, Enlarging, Varying, Refining
):
    """Pictures to make: each prompt `count` times, with seeds `seed`, `seed + 1`, ...

    With a folder as `init`, that many for each picture in it.

    All fields but `prompts` are settings (`diffgen.settings`); None means the model's default.
    `clip_skip` is the text encoders' layer, counted from the last, which is 1; it applies to
    prompts, not to the negative. An empty prompt is unconditional; `negative=None` is an absent
    negative prompt, which SDXL distinguishes from an empty one. `guidance_interval` is in noise
    levels sigma. `fast` approximates the exact picture: it takes fewer steps on another schedule,
    unless either is given, and reuses some of the network's results. Raises UsageError for values
    that no model could serve.
    """

    prompts: Sequence[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.prompts, str):
            raise UsageError("prompts is a list of prompts; put a single one into brackets")
        for prompt in [*self.prompts, self.negative or "", self.towards or ""]:
            if len(prompt.encode("utf-8", "surrogatepass")) > MAX_PROMPT:
                raise UsageError(f"a prompt has at most {MAX_PROMPT >> 10} KiB: {shown(prompt)}")
        if not 0 <= self.seed <= MAX_SEED - self.count + 1:
            until = f" for the last of {self.count} pictures" if self.count > 1 else ""
            raise UsageError(f"seeds run from 0 to {MAX_SEED}{until}, got {self.seed}")
        low, high = self.guidance_interval
        if not 0.0 <= low < high:
            raise UsageError(f"a guidance interval is LOW,HIGH with LOW < HIGH, got {low},{high}")
        self._check_levels()

    def _check_levels(self) -> None:
        if [self.steps, self.sigmas, self.timesteps].count(None) < 2:
            raise UsageError("give one of steps, sigmas and timesteps: a list has its own length")
        if self.schedule and (self.sigmas or self.timesteps):
            raise UsageError("a list of sigmas or timesteps is a schedule; drop the schedule name")
        _check_levels("sigmas", self.sigmas, lowest=1e-6)
        _check_levels("timesteps", self.timesteps, lowest=0.0)


def _check_levels(name: str, values: Sequence[float] | None, *, lowest: float) -> None:
    if values is None:
        return
    levels = list(values)
    if name == "sigmas" and len(levels) > 1 and levels[-1] == 0.0:
        levels.pop()
    descending = all(a > b for a, b in pairwise(levels))
    if not levels or not descending or not levels[-1] >= lowest or not math.isfinite(levels[0]):
        raise UsageError(f"{name} must be a descending list of finite numbers above {lowest:g}")
