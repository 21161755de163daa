"""What a user asks of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from diffgen.bench.defaults import SAMPLERS, SCHEDULES, STEPS
from diffgen.bench.grid import Grid
from diffgen.engine.model import DEFAULT_MODEL
from diffgen.engine.request import MAX_SEED, GeneratePlan, GenerateRequest, Picture
from diffgen.errors import UsageError
from diffgen.types import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Everything that decides what a sweep measures, by the names of the command's options.

    `samplers`, `schedules`, `steps` and `nfe` are lists as typed; `nfe` replaces `steps` by
    budgets of network evaluations. None means the model's own default. Raises UsageError.
    """

    prompts: tuple[str, ...]
    model: str = DEFAULT_MODEL
    vae: str | None = None
    prediction: Prediction | None = None
    zero_snr: bool | None = None
    clip_skip: int | None = None
    negative: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    samplers: str = SAMPLERS
    schedules: str = SCHEDULES
    steps: str = STEPS
    nfe: str | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    reference: int = 100
    repeats: int = 3
    clip: str | None = None
    target_psnr: float | None = None
    budget_seconds: float | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"

    def __post_init__(self) -> None:
        if not self.prompts:
            raise UsageError("no prompts to measure with")
        if self.reference < 4:
            raise UsageError(f"--reference must be at least 4 steps, got {self.reference}")
        if self.repeats < 1:
            raise UsageError(f"--repeats must be at least 1, got {self.repeats}")
        if not self.seeds or max(self.seeds) > MAX_SEED:
            raise UsageError(f"--seeds are numbers from 0 to {MAX_SEED}")
        _positive("--target-psnr", self.target_psnr)
        _positive("--budget-seconds", self.budget_seconds)
        grid = self.grid()
        if grid.steps[-1] > self.reference:
            raise UsageError(
                f"--reference {self.reference} is to be the converged solution, so it takes more "
                f"steps than the {grid.steps[-1]} to be measured against it"
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The request behind earlier results; raises UsageError where they make none."""
        known = {f.name for f in fields(cls)} & settings.keys()
        lists = known & {"prompts", "seeds"}
        try:
            values: dict[str, Any] = {k: settings[k] for k in known}
            return cls(**values | {k: tuple(settings[k]) for k in lists})
        except TypeError as error:
            raise UsageError(f"the settings of these results cannot be read: {error}") from error

    def grid(self) -> Grid:
        """The axes of the sweep."""
        numbers = self.steps if self.nfe is None else self.nfe
        return Grid.parse(self.samplers, self.schedules, numbers, by_calls=self.nfe is not None)

    @property
    def takes_default_steps(self) -> bool:
        """Whether nobody said how many steps are to be measured."""
        return self.steps == STEPS and self.nfe is None

    def pictures(self) -> tuple[Picture, ...]:
        """What every cell draws: each prompt with each seed."""
        return tuple(Picture(prompt, seed) for prompt in self.prompts for seed in self.seeds)

    def generate_request(self, **changes: Any) -> GenerateRequest:
        """The same for one run of `generate`, by default with the model's own sampler."""
        return GenerateRequest(
            prompts=self.prompts,
            negative=self.negative,
            width=self.width,
            height=self.height,
            guidance_scale=self.guidance,
            clip_skip=self.clip_skip,
            **changes,
        )

    def settings(self, plan: GeneratePlan) -> dict[str, Any]:
        """The request as plain values, with the model's defaults filled in."""
        resolved = {
            "prompts": list(self.prompts),
            "seeds": list(self.seeds),
            "guidance": plan.guidance_scale,
            "width": plan.width,
            "height": plan.height,
        }
        return asdict(self) | resolved


def _positive(option: str, value: float | None) -> None:
    if value is not None and not (value > 0.0 and math.isfinite(value)):
        raise UsageError(f"{option} must be a number above 0, got {value}")
