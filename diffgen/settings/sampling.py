"""How the noise is taken away, and how strongly the prompt steers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffgen.errors import UsageError
from diffgen.settings.grammar import parse_guidance, parse_interval, parse_numbers, parse_stretches
from diffgen.settings.names import known_sampler, known_spacing, parse_sampler, parse_spacing
from diffgen.settings.setting import Group, Setting
from diffgen.types import GuidanceName, RngName, SamplerName, SpacingName, Stretch

MAX_STEPS = 100_000
EVERYWHERE = (0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Sampling(Group):
    """How the noise is taken away. `sigmas` or `timesteps` replace `steps` and `schedule`.

    Names of other programs become ours; one that holds a spacing, as "DPM++ 2M Karras" does, sets
    the schedule unless that is given. Of all its steps a run takes the last ones, in a share of
    `last`, and of these the ones that begin in a `stretch` of the model's timesteps, which runs
    from 0, all noise, to 1, none.
    """

    panel: ClassVar[str] = "Sampling"

    sampler: Annotated[
        SamplerName | None,
        Setting(
            "-s --sampler",
            "See `diffgen samplers`; other programs' names work [default: the model's]",
            "NAME",
            parse=known_sampler,
            peers="sampling-method sampler-name sample-method sampler-index scheduler-type solver "
            "method",
        ),
    ] = None
    steps: Annotated[
        int | None,
        Setting(
            "--steps",
            "Sampler steps [default: the model's]",
            "N",
            low=1,
            high=MAX_STEPS,
            peers="num-inference-steps inference-steps ddim-steps sample-steps sampling-steps "
            "num-steps n-steps step",
        ),
    ] = None
    schedule: Annotated[
        SpacingName | None,
        Setting(
            "--schedule",
            "Spacing of the steps: karras, trailing, ... [default: the model's]",
            "NAME",
            parse=known_spacing,
            peers="schedule-type",
        ),
    ] = None
    sigmas: Annotated[
        tuple[float, ...] | None,
        Setting(
            "--sigmas", "Explicit noise levels, descending: 14.6,5,1", "LIST", parse=parse_numbers
        ),
    ] = None
    timesteps: Annotated[
        tuple[float, ...] | None,
        Setting("--timesteps", "Explicit timesteps: 999,650,300", "LIST", parse=parse_numbers),
    ] = None
    rho: Annotated[
        float | None,
        Setting(
            "--rho",
            "Curvature of karras (7) and polyexponential (1) schedules",
            low=1e-3,
            high=1e3,
        ),
    ] = None
    eta: Annotated[
        float | None,
        Setting(
            "--eta",
            "How stochastic the sampler is, where it can be [default: its own]",
            low=0,
            high=1,  # beyond it a step asks for more noise than the next noise level has room for
            peers="ddim-eta eta-ddim",
        ),
    ] = None
    s_churn: Annotated[
        float | None,
        Setting(
            "--s-churn",
            "Noise added before each step (euler, heun) [default: 0]",
            low=0,
            peers="churn",
        ),
    ] = None
    rng: Annotated[
        RngName,
        Setting(
            "--rng",
            "Whose noise a seed gives: diffusers', A1111's on a GPU, or ComfyUI's [default: cpu]",
            peers="randn-source",
        ),
    ] = "cpu"
    last: float = 1.0
    stretch: tuple[float, float] = (0.0, 1.0)
    fast: Annotated[
        bool,
        Setting("--fast", "Sooner, not exact: on storybook 1.8 times as fast, 27 dB away"),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sigmas", "timesteps"):
            if (levels := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(levels))
        if self.sampler:
            name, spacing = parse_sampler(self.sampler)
            object.__setattr__(self, "sampler", name)
            object.__setattr__(self, "schedule", self.schedule or spacing)
        if self.schedule:
            object.__setattr__(self, "schedule", parse_spacing(self.schedule))

    @property
    def options(self) -> Mapping[str, float]:
        """The sampler's own settings that were given."""
        own = {"eta": self.eta, "s_churn": self.s_churn}
        return {name: value for name, value in own.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Guidance(Group):
    """How strongly the prompt steers."""

    panel: ClassVar[str] = "Guidance"

    guidance_scale: Annotated[
        float | None,
        Setting(
            "-g --guidance",
            "Guidance scale; 1 or less is none [default: the model's]",
            "X",
            parse=parse_guidance,
            peers="cfg-scale cfg scale cfgscale",
        ),
    ] = None
    guidance_schedule: Annotated[
        tuple[Stretch, ...] | None,
        Setting(
            "--guidance-schedule",
            "Scales for shares of the steps, 7@0-0.6,1@0.6-1; -g takes it too",
            "LIST",
            parse=parse_stretches,
        ),
    ] = None
    guidance_method: Annotated[
        GuidanceName,
        Setting(
            "--guidance-method",
            "How outputs with and without the prompt become one; cfg++ takes scales from 0 to 1"
            " [default: cfg]",
            peers="guider",
        ),
    ] = "cfg"
    pag: Annotated[
        float,
        Setting(
            "--pag",
            "Perturbed-attention guidance, about 3; one more evaluation a step [default: 0]",
            low=0,
            high=1000,
            peers="pag-scale",
        ),
    ] = 0.0
    apg_momentum: Annotated[
        float,
        Setting(
            "--apg-momentum",
            "Of apg: share of the steps before, negative is away from them [default: -0.5]",
            low=-1,
            high=1,
        ),
    ] = -0.5
    apg_norm: Annotated[
        float,
        Setting(
            "--apg-norm",
            "Of apg: the longest step, for 128 x 128 latents [default: 15]",
            low=1e-6,
            high=1e6,
        ),
    ] = 15.0
    apg_parallel: Annotated[
        float,
        Setting(
            "--apg-parallel",
            "Of apg: share of the part along the picture [default: 0]",
            low=0,
            high=1,
        ),
    ] = 0.0
    guidance_rescale: Annotated[
        float,
        Setting(
            "--guidance-rescale",
            "Tame over-exposure by guidance, 0 to 1 [default: 0]",
            low=0,
            high=1,
            peers="cfg-rescale rescale guidance-scale-rescale cfg-rescale-phi",
        ),
    ] = 0.0
    guidance_interval: Annotated[
        tuple[float, float],
        Setting(
            "--guidance-interval",
            "Guide only between these noise levels [default: all]",
            "LOW-HIGH",
            parse=parse_interval,
            peers="cfg-interval guidance-start guidance-end",
        ),
    ] = EVERYWHERE

    def __post_init__(self) -> None:
        if isinstance(self.guidance_scale, tuple):
            if self.guidance_schedule is not None:
                raise UsageError("give the scales for shares of the steps once")
            object.__setattr__(self, "guidance_schedule", self.guidance_scale)
            object.__setattr__(self, "guidance_scale", None)
        super().__post_init__()
