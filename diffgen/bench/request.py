"""A user's request for a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Self

from diffgen.bench.grid import Grid
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.settings.axes import Point
from diffgen.settings.model import Adapters, Source
from diffgen.settings.picture import MAX_SEED, Size
from diffgen.settings.prompting import Prompting
from diffgen.settings.running import Machine
from diffgen.settings.sampling import Guidance
from diffgen.settings.setting import find, plain
from diffgen.settings.sweep import AXES, BY_LABEL, STEPS, Axes, Measuring, Varied


@dataclass(frozen=True, kw_only=True)
class SweepRequest(Axes, Varied, Measuring, Prompting, Size, Guidance, Source, Adapters, Machine):
    """Everything that decides what a sweep measures.

    `samplers`, `schedules`, `steps` and `nfe` are lists as typed; `nfe` replaces `steps` by budgets
    of network evaluations. None means the model's default. `several` has the values, more than one,
    of settings that are axes of the grid (`settings.sweep.AXES`), by field name; the field itself
    then has its default. Raises UsageError.
    """

    prompts: tuple[str, ...]
    several: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompts:
            raise UsageError("no prompts to measure with")
        if not self.seeds or max(self.seeds) > MAX_SEED:
            raise UsageError(f"--seeds are numbers from 0 to {MAX_SEED}")
        for name, values in self.several.items():
            AXES[name].read(list(values))
        if "cfg++" in (self.guidance_method, *self.several.get("guidance_method", ())):
            raise UsageError(
                "sample-steps measures cfg and apg: the scales of cfg++ go by the steps, so that "
                "no picture is the one that more steps come nearer to"
            )
        if "auto" in self.several.get("dtype", ()):
            raise UsageError("--dtype auto is one of the others; name the formats to compare")
        if not all(lora.always for stack in self.values("loras") for lora in stack):
            raise UsageError(
                "sample-steps measures LoRAs of the whole run: a part of it, as steps= says, goes "
                "by the steps, so that no picture is the one that more steps come nearer to"
            )
        grid = self.grid()
        self._check_eta(grid)
        if grid.steps[-1] > self.reference:
            raise UsageError(
                f"--reference {self.reference} is to be the converged solution, so it takes more "
                f"steps than the {grid.steps[-1]} to be measured against it"
            )

    def _check_eta(self, grid: Grid) -> None:
        asked = self.eta is not None or "eta" in self.several
        if asked and not any("eta" in SAMPLERS[name].options for name, _ in grid.samplers):
            raise UsageError(f"--eta: none of the samplers {self.samplers} has an eta")

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], typed: Mapping[str, Any] = MappingProxyType({})
    ) -> Self:
        """The request of earlier results, overridden by what was `typed`, by field name.

        Raises UsageError for results without valid settings.
        """
        prompts = settings.get("prompts")
        if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
            raise UsageError("the settings of these results cannot be read: prompts is no list")
        found = ((find(word, cls), word, value) for word, value in settings.items())
        values = {
            row.name: AXES.get(row.name, row).read(value, word) for row, word, value in found if row
        } | dict(typed)
        lists = {name for name in AXES if isinstance(values.get(name), list)}
        several = {name: tuple(values[name]) for name in AXES if name in lists}
        single = {name: value for name, value in values.items() if name not in lists}
        return cls(prompts=tuple(prompts), several=several, **single)

    def grid(self) -> Grid:
        """The axes of the sweep."""
        numbers = self.steps if self.nfe is None else self.nfe
        return Grid.parse(
            self.samplers,
            self.schedules,
            numbers,
            by_calls=self.nfe is not None,
            points=self.points(),
        )

    def points(self) -> tuple[Point, ...]:
        """The combinations of the further axes' values; a single empty one without axes."""
        axes = [
            [(axis.label, mark) for mark, _ in self.marked(name)]
            for name, axis in AXES.items()
            if name in self.several
        ]
        return tuple(product(*axes))

    def marked(self, name: str) -> list[tuple[Any, Any]]:
        """The mark and the value of each of several values of a setting."""
        values = self.several.get(name, ())
        return list(zip(AXES[name].marks(values), values, strict=True))

    def values(self, name: str) -> tuple[Any, ...]:
        """The values of a setting, several or one."""
        return self.several.get(name, (getattr(self, name),))

    def at(self, pairs: Iterable[tuple[str, object]]) -> Self:
        """The request for one point of the further axes alone."""
        found = {}
        for label, mark in pairs:
            axis = BY_LABEL[label]
            found[axis.name] = dict(self.marked(axis.name))[mark]
        return replace(self, several={}, **found)

    @property
    def takes_default_steps(self) -> bool:
        """Whether the steps are the default."""
        return self.steps == STEPS and self.nfe is None

    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of every cell: each prompt with each seed."""
        return tuple(Picture(prompt, seed) for prompt in self.prompts for seed in self.seeds)

    def generate_request(self, **changes: Any) -> GenerateRequest:
        """The request for one run of `generate`, by default with the model's own sampler."""
        shared = {
            name: value
            for group in (Prompting, Size, Guidance)
            for name, value in vars(self.part(group)).items()
        }
        return GenerateRequest(prompts=self.prompts, **shared, **changes)

    def settings(self, plan: GeneratePlan) -> dict[str, Any]:
        """The request as plain values, with the defaults of a single model filled in."""
        asked = plain(self)
        # Results have gone by the user's word for it since the first.
        resolved = {"prompts": list(self.prompts), "guidance": asked.pop("guidance_scale")}
        if "model" not in self.several:
            resolved |= {
                "guidance": plan.guidance_scale,
                "width": plan.width,
                "height": plan.height,
            }
        lists = {
            name: [AXES[name].plain(value) for value in values]
            for name, values in self.several.items()
        }
        if "guidance_scale" in lists:
            lists["guidance"] = lists.pop("guidance_scale")
        return asked | resolved | lists
