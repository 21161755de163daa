"""One row of the registry of samplers, and the settings derived from a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from diffgen.diffusion.samplers.second_order import restart_segment
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import Grid
from diffgen.types import NoiseConfig, SamplerName, SpacingName, Steps

# (denoise, x, sigmas, *, noise, **settings): yields (sigma, x, denoised) after each step, of which the
# last x is the result.
SamplerFn: TypeAlias = Callable[..., Steps]


@dataclass(frozen=True, slots=True)
class Run:
    """The input of a sampler: the model's noise, the levels and the settings."""

    config: NoiseConfig
    schedule: NoiseSchedule
    sigmas: Sequence[float]
    options: Mapping[str, float]


def as_given(run: Run) -> dict[str, Any]:
    """The user's settings, for samplers that need no others."""
    return dict(run.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """One sampler.

    `nfe(sigmas)` is the exact number of network evaluations of a run, None where the sampler
    decides while it runs, and `steps(sigmas)` that of its steps, 0 there. `options` are the settings a user may change, with their defaults.
    `noise` says where randomness comes from: nowhere, independent draws, or one Brownian path.

    Three conventions of diffusers decide whether the same seed gives the same picture: `grid`
    (see SpacingOptions), `start` (the state begins as noise times sigma, or times
    sqrt(1 + sigma^2) as in VP samplers) and `final` (a run over timesteps ends at 0 or at the
    first table entry, unless the checkpoint's `set_alpha_to_one` decides).
    """

    name: SamplerName
    label: str  # A1111's name, for the PNG's metadata
    fn: SamplerFn
    paper: str
    order: int
    evals_per_step: int = 1
    nfe: Callable[[Sequence[float]], int] | None = lambda sigmas: len(sigmas) - 1
    steps: Callable[[Sequence[float]], int] = lambda sigmas: len(sigmas) - 1
    noise: Literal["none", "stream", "brownian"] = "none"
    options: Mapping[str, float] = field(default_factory=dict)
    grid: Grid = "exact"
    start: Literal["sigma", "vp"] = "sigma"
    final: Literal["zero", "table"] = "zero"
    final_by_checkpoint: bool = False
    schedule: SpacingName | None = None  # for samplers that need one of their own
    distilled: bool = False  # meant for models distilled to few steps without guidance
    prepare: Callable[[Run], dict[str, Any]] = as_given  # keyword arguments of fn

    @property
    def stochastic(self) -> bool:
        return self.noise != "none"


def two_per_step(sigmas: Sequence[float]) -> int:
    """Two evaluations a step, but one for a step that ends at 0."""
    return 2 * (len(sigmas) - 1) - (1 if sigmas[-1] == 0.0 else 0)


def plms_nfe(sigmas: Sequence[float]) -> int:
    """One evaluation a step, and one more for the first unless it is the only one."""
    return len(sigmas) if len(sigmas) > 2 else 1


def restart_nfe(sigmas: Sequence[float]) -> int:
    """As Heun's, and again for each repetition of the segment."""
    segment = restart_segment(sigmas)
    extra = 2 * (len(segment[1]) - 1) * segment[2] if segment else 0
    return two_per_step(sigmas) + extra


def plms_output(run: Run) -> dict[str, Any]:
    """The network output to extrapolate: v if the network predicts it, else eps."""
    return {"combine_v": run.config.prediction == "v"}


def tcd_landings(run: Run) -> dict[str, Any]:
    """Noise levels at s = floor((1 - eta) t_next), where each step's ODE part ends."""
    if run.options["eta"] == 0.0:
        return {"landings": run.sigmas[1:]}
    timesteps = [run.schedule.sigma_to_t(sigma) for sigma in run.sigmas[1:]]
    # A tolerance before rounding down: t went through a logarithm.
    shortened = [int((1.0 - run.options["eta"]) * t + 1e-6) for t in timesteps]
    landings = [run.schedule.t_to_sigma(s) for s in shortened]
    return {"landings": [min(a, b) for a, b in zip(landings, run.sigmas[1:], strict=True)]}


def sa_interval(run: Run) -> dict[str, Any]:
    """Stochastic between timesteps 200 and 800 of 1000, the paper's choice for latent models."""
    last = run.schedule.num_train_timesteps
    low, high = run.schedule.t_to_sigma(0.2 * last), run.schedule.t_to_sigma(0.8 * last)
    return {"stochastic_between": (low, high)}
