"""A sampling run: settings -> noise levels -> latents.

`SamplingPlan` settles everything that can be settled before a network exists, so that a wrong
setting fails early and the number of network evaluations is known; `run` carries it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.samplers.spec import Run, SamplerSpec
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import CURVED, SpacingOptions, make_sigmas, sigmas_from_timesteps
from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.types import (
    Denoiser,
    NoiseSource,
    SamplerName,
    ScheduleConfig,
    ScheduleName,
    StepCallback,
    StepInfo,
    ignore,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEFAULT_STEPS = 20

# Spacings made of training timesteps, whose runs may end at the first table entry instead of 0.
_TIMESTEP_GRIDS = ("leading", "trailing", "linspace", "lcm")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """What a user chooses about sampling. None means: as the checkpoint's makers do.

    `sigmas` or `timesteps` replace `steps` and `schedule` by an explicit list.
    """

    sampler: SamplerName | None = None
    steps: int | None = None
    schedule: ScheduleName | None = None
    sigmas: tuple[float, ...] | None = None
    timesteps: tuple[float, ...] | None = None
    rho: float | None = None
    options: Mapping[str, float] | None = None  # eta, s_churn, ... of the sampler


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """One run, ready to go: the sampler, its noise levels, and how the state begins."""

    spec: SamplerSpec
    schedule: ScheduleName | None  # None for an explicit list
    sigmas: tuple[float, ...]
    start: float  # the unit noise is multiplied by this
    arguments: Mapping[str, Any]
    options: Mapping[str, float]
    rho: float | None = None

    @classmethod
    def make(
        cls,
        settings: SamplingSettings,
        config: ScheduleConfig,
        noise_schedule: NoiseSchedule,
        *,
        sdxl: bool = False,
    ) -> SamplingPlan:
        """Resolve the settings against a checkpoint's schedule.

        Raises UsageError for options the sampler does not have and for impossible step counts, and
        UnsupportedCheckpoint where the checkpoint's own sampler is asked for and not to be had.
        """
        if settings.sampler is None and config.unsupported:
            raise UnsupportedCheckpoint(f"{config.unsupported}; name another sampler with -s")
        spec = SAMPLERS[settings.sampler or config.sampler]
        options = _merge_options(spec, settings.options or {})
        explicit = settings.sigmas is not None or settings.timesteps is not None
        schedule = None if explicit else settings.schedule or spec.schedule or config.spacing
        if settings.rho is not None and schedule not in CURVED:
            raise UsageError(
                f"rho curves the schedules {' and '.join(CURVED)}, not {schedule or 'a list'}"
            )
        spacing = SpacingOptions(
            grid=spec.grid,
            steps_offset=config.steps_offset,
            rho=settings.rho,
            sdxl=sdxl,
            distilled_steps=config.distilled_steps,
        )
        on_grid = settings.timesteps is not None or schedule in _TIMESTEP_GRIDS
        stops_early = spec.final == "table"
        if spec.final_by_checkpoint and config.final_alpha_one is not None:
            stops_early = not config.final_alpha_one
        final = noise_schedule.sigma_min if on_grid and stops_early else 0.0
        if settings.sigmas is not None:
            last = settings.sigmas[-1]
            sigmas = [*settings.sigmas] if last == 0.0 else [*settings.sigmas, 0.0]
        elif settings.timesteps is not None:
            sigmas = sigmas_from_timesteps(noise_schedule, settings.timesteps, final=final)
        else:
            assert schedule is not None
            steps = settings.steps or (4 if spec.distilled else DEFAULT_STEPS)
            sigmas = make_sigmas(schedule, noise_schedule, steps, spacing, final=final)
        # diffusers starts the k-diffusion samplers from sigma * noise unless spacing is leading.
        vp_start = spec.start == "vp" or schedule == "leading"
        start = math.hypot(1.0, sigmas[0]) if vp_start else sigmas[0]
        arguments = spec.prepare(Run(config, noise_schedule, sigmas, options))
        return cls(spec, schedule, tuple(sigmas), start, arguments, options, settings.rho)

    @property
    def nfe(self) -> int | None:
        """Network evaluations of the run; None where the sampler decides while it runs."""
        return None if self.spec.nfe is None else self.spec.nfe(self.sigmas)

    def run(
        self,
        denoise: Denoiser,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device,
        *,
        noise: NoiseSource | None = None,
        on_step: StepCallback = ignore,
    ) -> Tensor:
        """Sample one image per seed; `shape` is (C, h, w). Returns latents (B, C, h, w) float32.

        `noise` replaces the sampler's own source of noise on the way; the start noise stays.
        """
        from diffgen.diffusion.noise import BrownianNoise, StreamNoise

        stream = StreamNoise(seeds, shape, device)
        x = stream.draw() * self.start
        if noise is None:
            brownian = self.spec.noise == "brownian"
            noise = BrownianNoise(seeds, shape, device) if brownian else stream
        steps = self.spec.fn(denoise, x, self.sigmas, noise=noise, **self.arguments)
        total = self.spec.steps(self.sigmas)
        for index, (sigma, x, denoised) in enumerate(steps):  # the state goes on
            on_step(StepInfo(index, total, sigma, x, denoised))
        # Latents are variance preserving; where a run ends above 0 the state must be scaled back.
        return x / math.hypot(1.0, self.sigmas[-1])


def _merge_options(spec: SamplerSpec, options: Mapping[str, float]) -> dict[str, float]:
    for name in options:
        if name not in spec.options:
            takes = ", ".join(spec.options) or "no such setting"
            raise UsageError(f"sampler {spec.name} has no {name} (it takes {takes})")
        if name == "eta" and not 0.0 <= options[name] <= 1.0:
            # Beyond 1 a step asks for more noise than the next noise level has room for.
            raise UsageError(f"eta is between 0 and 1, got {options[name]:g}")
    return {**spec.options, **options}
