"""A sampling run: settings -> noise levels -> latents.

`SamplingPlan` resolves everything that does not need a network, so that a wrong setting fails early
and the number of network evaluations is known; `run` executes it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from diffgen.diffusion.prediction import Space, state_scale
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.samplers.spec import Run, SamplerSpec
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import CURVED, SpacingOptions, make_sigmas, sigmas_from_timesteps
from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.settings.sampling import Sampling
from diffgen.types import (
    AysName,
    Denoiser,
    NoiseConfig,
    NoiseSource,
    RngName,
    SpacingName,
    StepCallback,
    StepInfo,
    ignore,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEFAULT_STEPS = 20

# Spacings of training timesteps, whose runs may end at the first table entry instead of 0.
_TIMESTEP_GRIDS = ("leading", "trailing", "linspace", "lcm")


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """One run, ready to execute: the sampler, its noise levels, and the start of the state."""

    spec: SamplerSpec
    schedule: SpacingName | None  # None for an explicit list
    sigmas: tuple[float, ...]
    start: float  # factor of the unit start noise
    arguments: Mapping[str, Any]
    options: Mapping[str, float]
    rho: float | None = None
    rng: RngName = "cpu"
    space: Space = "vp"  # space of the network's input states
    whole: tuple[float, ...] = ()  # the whole run's noise levels, of which `sigmas` are a part

    @classmethod
    def make(
        cls,
        settings: Sampling,
        config: NoiseConfig,
        noise_schedule: NoiseSchedule,
        *,
        ays: AysName = "sd15",
    ) -> SamplingPlan:
        """Resolve the settings against a checkpoint's schedule; `ays` names its family's list.

        Raises UsageError for options that the sampler lacks and for impossible step counts, and
        UnsupportedCheckpoint if the checkpoint's own sampler is asked for and unsupported.
        """
        spec = _spec(settings, config)
        options = _merge_options(spec, settings.options)
        schedule = _schedule(spec, settings, config)
        sigmas = _levels(spec, settings, config, noise_schedule, schedule, ays=ays)
        levels = _stretch(_last(sigmas, settings.last), settings.stretch, noise_schedule)
        # diffusers starts the k-diffusion samplers from sigma * noise unless spacing is leading.
        scaled = spec.start == "vp" or schedule == "leading" or not noise_schedule.on_betas
        space = noise_schedule.space
        return cls(
            spec=spec,
            schedule=schedule,
            sigmas=tuple(levels),
            start=state_scale(levels[0], space) if scaled else levels[0],
            arguments=spec.prepare(Run(config, noise_schedule, levels, options)),
            options=options,
            rho=settings.rho,
            rng=settings.rng,
            space=space,
            whole=tuple(sigmas),
        )

    @property
    def steps_asked(self) -> int:
        """Steps of the whole run."""
        return len(self.whole) - 1

    @property
    def steps_run(self) -> int:
        """Steps of this part of it, as img2img leaves out the first ones."""
        return len(self.sigmas) - 1

    @property
    def nfe(self) -> int | None:
        """Network evaluations of the run; None for an adaptive sampler."""
        if len(self.sigmas) == 1:
            return 0
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

        `noise` replaces the sampler's source of noise during the run; the start noise stays.
        """
        unit, source = self.noise(seeds, shape, device)
        state = self.walk(denoise, self.begin(unit), noise or source, on_step=on_step)
        return self.latents(state)

    def noise(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device,
        *,
        variation: tuple[int, float] | None = None,
    ) -> tuple[Tensor, NoiseSource]:
        """Unit start noise (B, C, h, w) float32, and the source of noise during the run.

        `variation` is another seed and the share of its noise, from 0 to 1.
        """
        from diffgen.diffusion.noise import BrownianNoise, NoiseBetween, StreamNoise

        stream: NoiseSource = StreamNoise(seeds, shape, device, self.rng)
        brownian: NoiseSource = BrownianNoise(seeds, shape, device)
        if variation:
            other, share = variation
            others = [other] * len(seeds)
            stream = NoiseBetween(stream, StreamNoise(others, shape, device, self.rng), share)
            brownian = NoiseBetween(brownian, BrownianNoise(others, shape, device), share)
        unit = stream(math.inf, self.sigmas[0])
        return unit, brownian if self.spec.noise == "brownian" else stream

    def begin(self, noise: Tensor, init: Tensor | None = None) -> Tensor:
        """The first state: noise alone, or a picture's latents with noise; all (B, C, h, w)."""
        if init is None:
            return noise * self.start
        # At strength 0 no step is run, so the state must not be noisy.
        return init + noise * self.sigmas[0] if len(self.sigmas) > 1 else init

    def walk(
        self,
        denoise: Denoiser,
        x: Tensor,
        noise: NoiseSource,
        *,
        on_step: StepCallback = ignore,
    ) -> Tensor:
        """From a state at the first noise level to one at the last, (B, C, h, w) float32."""
        for step in self.steps(denoise, x, noise):
            x = step.x
            on_step(step)
        return x

    def steps(self, denoise: Denoiser, x: Tensor, noise: NoiseSource) -> Iterator[StepInfo]:
        """The steps of `walk`, one at a time: report, preview, or stop between them."""
        if len(self.sigmas) == 1:
            return iter(())
        total = self.spec.steps(self.sigmas)
        steps = self.spec.fn(denoise, x, self.sigmas, noise=noise, **self.arguments)
        # A map, so that no frame stands between the caller and the sampler.
        return map(lambda index, step: StepInfo(index, total, *step), count(), steps)

    def latents(self, x: Tensor) -> Tensor:
        """The last state as latents, scaled as for the network if the run ends above 0."""
        return x / state_scale(self.sigmas[-1], self.space) if len(self.sigmas) > 1 else x


def steps_of(strength: float, steps: int) -> int:
    """The number of `steps` that a strength runs: rounded down, as in diffusers.

    Raises UsageError for a strength above 0 that gives none.
    """
    run = min(steps, int(strength * steps + 1e-9))  # 0.29 * 100 is a little less than 29
    if run == 0 and strength > 0.0:
        raise UsageError(
            f"strength {strength:g} is less than one of {steps} steps; take at least "
            f"{1 / steps:.2g}, or more steps"
        )
    return run


def _last(sigmas: Sequence[float], strength: float) -> Sequence[float]:
    return sigmas[len(sigmas) - 1 - steps_of(strength, len(sigmas) - 1) :]


def _stretch(
    sigmas: Sequence[float], stretch: tuple[float, float], schedule: NoiseSchedule
) -> Sequence[float]:
    """The noise levels between two shares of the timesteps; a step belongs to its start.

    Raises UsageError if that is no step.
    """
    if stretch == (0.0, 1.0):
        return sigmas
    total = schedule.num_train_timesteps
    done = [1.0 - schedule.sigma_to_t(sigma) / total for sigma in sigmas[:-1]]
    # The share is rounded to a timestep, as in diffusers.
    first, last = (bisect_right(done, round(share * total) / total + 1e-9) for share in stretch)
    if first >= last:
        low, high = stretch
        raise UsageError(f"no step lies between {low:g} and {high:g} of the way; take more steps")
    return sigmas[first : last + 1]


def _spec(settings: Sampling, config: NoiseConfig) -> SamplerSpec:
    if settings.sampler is None and config.unsupported:
        raise UnsupportedCheckpoint(f"{config.unsupported}; name another sampler with -s")
    return SAMPLERS[settings.sampler or config.sampler]


def _schedule(spec: SamplerSpec, settings: Sampling, config: NoiseConfig) -> SpacingName | None:
    """The spacing of the steps; None for an explicit list."""
    explicit = settings.sigmas is not None or settings.timesteps is not None
    schedule = None if explicit else settings.schedule or spec.schedule or config.spacing
    if settings.rho is not None and schedule not in CURVED:
        curved, given = " and ".join(CURVED), schedule or "a list"
        raise UsageError(f"rho curves the schedules {curved}, not {given}")
    return schedule


def _merge_options(spec: SamplerSpec, options: Mapping[str, float]) -> dict[str, float]:
    for name in options:
        if name not in spec.options:
            takes = ", ".join(spec.options) or "no such setting"
            raise UsageError(f"sampler {spec.name} has no {name} (it takes {takes})")
    return {**spec.options, **options}


def _last_level(
    spec: SamplerSpec,
    settings: Sampling,
    config: NoiseConfig,
    noise_schedule: NoiseSchedule,
    schedule: SpacingName | None,
) -> float:
    """The last noise level of a run: 0, or the first of the model's table."""
    on_grid = settings.timesteps is not None or schedule in _TIMESTEP_GRIDS
    stops_early = spec.final == "table"
    if spec.final_by_checkpoint and config.final_alpha_one is not None:
        stops_early = not config.final_alpha_one
    early = on_grid and stops_early and noise_schedule.on_betas
    return noise_schedule.sigma_min if early else 0.0


def _levels(
    spec: SamplerSpec,
    settings: Sampling,
    config: NoiseConfig,
    noise_schedule: NoiseSchedule,
    schedule: SpacingName | None,
    *,
    ays: AysName,
) -> list[float]:
    """The noise levels of a whole run, descending, to 0 or the first of the model's table."""
    if settings.sigmas is not None:
        ended = settings.sigmas[-1] == 0.0
        return [*settings.sigmas] if ended else [*settings.sigmas, 0.0]
    final = _last_level(spec, settings, config, noise_schedule, schedule)
    if settings.timesteps is not None:
        return sigmas_from_timesteps(noise_schedule, settings.timesteps, final=final)
    assert schedule is not None
    spacing = SpacingOptions(
        grid=spec.grid,
        steps_offset=config.steps_offset,
        rho=settings.rho,
        ays=ays,
        distilled_steps=config.distilled_steps,
    )
    steps = settings.steps or (4 if spec.distilled else DEFAULT_STEPS)
    return make_sigmas(schedule, noise_schedule, steps, spacing, final=final)
