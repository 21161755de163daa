"""What a user asks of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from diffgen.bench.grid import Grid
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.settings.model import Source
from diffgen.settings.picture import MAX_SEED, Size
from diffgen.settings.prompting import Prompting
from diffgen.settings.running import Machine
from diffgen.settings.sampling import Guidance
from diffgen.settings.setting import find, plain
from diffgen.settings.sweep import STEPS, Axes, Measuring


@dataclass(frozen=True, kw_only=True)
class SweepRequest(Axes, Measuring, Prompting, Size, Guidance, Source, Machine):
    """Everything that decides what a sweep measures.

    `samplers`, `schedules`, `steps` and `nfe` are lists as typed; `nfe` replaces `steps` by
    budgets of network evaluations. None means the model's own default. Raises UsageError.
    """

    prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompts:
            raise UsageError("no prompts to measure with")
        if not self.seeds or max(self.seeds) > MAX_SEED:
            raise UsageError(f"--seeds are numbers from 0 to {MAX_SEED}")
        grid = self.grid()
        if grid.steps[-1] > self.reference:
            raise UsageError(
                f"--reference {self.reference} is to be the converged solution, so it takes more "
                f"steps than the {grid.steps[-1]} to be measured against it"
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The request behind earlier results; raises UsageError where they make none."""
        prompts = settings.get("prompts")
        if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
            raise UsageError("the settings of these results cannot be read: prompts is no list")
        found = ((find(word, cls), word, value) for word, value in settings.items())
        values = {row.name: row.read(value, word) for row, word, value in found if row}
        return cls(prompts=tuple(prompts), **values)

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
        shared = {
            name: value
            for group in (Prompting, Size, Guidance)
            for name, value in vars(self.part(group)).items()
        }
        return GenerateRequest(prompts=self.prompts, **shared, **changes)

    def settings(self, plan: GeneratePlan) -> dict[str, Any]:
        """The request as plain values, with the model's defaults filled in."""
        resolved = {
            "prompts": list(self.prompts),
            "guidance": plan.guidance_scale,
            "width": plan.width,
            "height": plan.height,
        }
        asked = plain(self)
        del asked["guidance_scale"]  # results have gone by the user's word for it since the first
        return asked | resolved
