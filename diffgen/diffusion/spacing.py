"""Spacings: the noise levels at which the solver steps, chosen by `--schedule`.

A spacing is a function `(schedule, steps, options) -> sigmas`, descending, one per step.
`make_sigmas` adds the final noise level (0, or the first table entry for a solver that stops
there). Names follow diffusers (leading, trailing, linspace), ComfyUI (normal, simple, sgm_uniform,
ddim_uniform, beta, kl_optimal) and k-diffusion (karras, exponential, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffgen.diffusion.schedule import NoiseSchedule, linspace, shifted
from diffgen.errors import UsageError
from diffgen.types import AysName, SpacingName

Grid: TypeAlias = Literal["rounded", "exact", "extra"]


@dataclass(frozen=True, slots=True)
class SpacingOptions:
    """Parameters of a spacing besides the schedule and the number of steps.

    `grid` is the layout of leading and linspace by a solver's authors: `steps` whole timesteps
    ("rounded": DDPM, DDIM, PNDM), `steps` exact ones ("exact": the k-diffusion family), or `steps +
    1` whole ones without the lowest ("extra": the DPM-Solver family, whose last step then is not
    between two almost equal noise levels). `ays` names the family whose list ays takes. lcm picks its steps from a grid of `distilled_steps`.
    """

    grid: Grid = "exact"
    steps_offset: int = 0
    rho: float | None = None
    ays: AysName = "sd15"
    distilled_steps: int = 50


CURVED: tuple[SpacingName, ...] = ("karras", "polyexponential")  # those that use rho
Spacing: TypeAlias = Callable[[NoiseSchedule, int, SpacingOptions], list[float]]


def make_sigmas(
    name: SpacingName,
    schedule: NoiseSchedule,
    steps: int,
    options: SpacingOptions,
    *,
    final: float = 0.0,
) -> list[float]:
    """The noise levels of a run: `steps` of them descending, then `final`.

    Raises UsageError when the schedule has fewer timesteps than the steps asked for.
    """
    if steps > schedule.num_train_timesteps:
        raise UsageError(
            f"{steps} steps asked for, but the model knows {schedule.num_train_timesteps} timesteps"
        )
    return [*SPACINGS[name](schedule, steps, options), final]


def sigmas_from_timesteps(
    schedule: NoiseSchedule, timesteps: Sequence[float], *, final: float = 0.0
) -> list[float]:
    """An explicit list of timesteps as noise levels, closed by `final`."""
    return [*(schedule.t_to_sigma(t) for t in timesteps), final]


def _leading(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    total = schedule.num_train_timesteps
    points = steps + 1 if options.grid == "extra" else steps
    stride = total // points
    first = 1 if options.grid == "extra" else 0
    timesteps = [i * stride + options.steps_offset for i in range(first, points)]
    if stride == 0 or timesteps[-1] >= total:
        raise UsageError(f"{steps} steps do not fit the leading schedule of this sampler")
    return [schedule.t_to_sigma(t) for t in reversed(timesteps)]


def _trailing(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    total = schedule.num_train_timesteps
    # The stride as numpy's arange computes it: its rounding decides ties, as in diffusers.
    stride = (total - total / steps) - total
    return [schedule.t_to_sigma(round(total + i * stride) - 1) for i in range(steps)]


def _linspace(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    if schedule.shift is not None:
        # As diffusers' FlowMatchEulerDiscreteScheduler, whose lowest level is shifted twice.
        shares = linspace(1.0, schedule.ends[0], steps)
        return [schedule.from_own(shifted(share, schedule.shift)) for share in shares]
    if options.grid == "extra":
        if steps >= schedule.num_train_timesteps:
            raise UsageError(f"{steps} steps do not fit the linspace schedule of this sampler")
        return [schedule.t_to_sigma(round(t)) for t in _uniform(schedule, steps + 1)[:-1]]
    # A single point is the low end in numpy's linspace, and so in diffusers' classes.
    timesteps = _uniform(schedule, steps) if steps > 1 else [0.0]
    if options.grid == "rounded":
        timesteps = [round(t) for t in timesteps]
    return [schedule.t_to_sigma(t) for t in timesteps]


def _normal(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    return [schedule.t_to_sigma(t) for t in _uniform(schedule, steps)]


def _sgm_uniform(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    return [schedule.t_to_sigma(t) for t in _uniform(schedule, steps + 1)[:-1]]


def _simple(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    total = schedule.num_train_timesteps
    return [schedule.sigmas[total - 1 - i * total // steps] for i in range(steps)]


def _ddim_uniform(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    total = schedule.num_train_timesteps
    stride = total // steps
    # Starts at t = 1 as ComfyUI does, unless every single timestep is wanted.
    first = min(1, total - 1 - (steps - 1) * stride)
    return [schedule.sigmas[first + i * stride] for i in reversed(range(steps))]


def _karras(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    """Karras et al., arXiv:2206.00364, equation 5; rho defaults to 7."""
    rho = options.rho or 7.0
    low, high = schedule.ends
    roots = linspace(high ** (1 / rho), low ** (1 / rho), steps)
    return [schedule.from_own(root**rho) for root in roots]


def _polyexponential(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    """A polynomial in log sigma; rho 1 (the default) is exponential."""
    rho = options.rho or 1.0
    low, high = map(math.log, schedule.ends)
    ramp = linspace(1.0, 0.0, steps)
    return [schedule.from_own(math.exp(low + r**rho * (high - low))) for r in ramp]


def _exponential(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    return _polyexponential(schedule, steps, SpacingOptions(rho=1.0))


def _beta(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    """Timesteps at the quantiles of Beta(0.6, 0.6): dense at both ends (arXiv:2407.12173)."""
    quantile = _beta_quantiles(0.6)
    last = schedule.num_train_timesteps - 1
    return [schedule.t_to_sigma(last * quantile(1.0 - i / steps)) for i in range(steps)]


def _beta_quantiles(shape: float, cells: int = 4096) -> Callable[[float], float]:
    """Inverse distribution function of Beta(shape, shape).

    With x = sin(theta)^2 the density (x (1 - x))^(shape - 1) becomes (sin cos)^(2 shape - 1),
    which has no pole; the midpoint rule and linear interpolation do the rest.
    """
    width = math.pi / 2 / cells
    mass = [0.0]
    for i in range(cells):
        theta = (i + 0.5) * width
        mass.append(mass[-1] + (math.sin(theta) * math.cos(theta)) ** (2 * shape - 1))

    def quantile(p: float) -> float:
        target = p * mass[-1]
        low, high = 0, cells
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if mass[middle] <= target else (low, middle)
        fraction = (target - mass[low]) / (mass[high] - mass[low])
        return math.sin((low + fraction) * width) ** 2

    return quantile


# Optimised 10-step lists of Align Your Steps (Sabour et al., arXiv:2404.14507, project page).
_AYS: Mapping[AysName, tuple[float, ...]] = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


def _ays(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    """The 10-step list, log-linearly interpolated to other counts as its authors advise."""
    if not schedule.on_betas:
        raise UsageError("the schedule ays is made for other noise than this model's; take beta")
    logs = [math.log(sigma) for sigma in _AYS[options.ays]]
    sigmas = []
    for position in linspace(0.0, len(logs) - 1.0, steps + 1)[:-1]:
        low = min(int(position), len(logs) - 2)
        sigmas.append(math.exp(logs[low] + (position - low) * (logs[low + 1] - logs[low])))
    return sigmas


def _kl_optimal(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    """Optimal for a Gaussian: uniform in atan(sigma) (arXiv:2404.14507, equation 15)."""
    angles = linspace(math.atan(schedule.sigma_max), math.atan(schedule.sigma_min), steps)
    return [math.tan(angle) for angle in angles]


def _lcm(schedule: NoiseSchedule, steps: int, options: SpacingOptions) -> list[float]:
    """A subset of the timesteps that a consistency model was distilled on (arXiv:2310.04378)."""
    total = schedule.num_train_timesteps
    origin = min(options.distilled_steps, total)
    if steps > origin:
        raise UsageError(
            f"{steps} steps asked for, but the lcm schedule picks them from the {origin} that "
            f"models are distilled on; take at most {origin}, or another schedule"
        )
    stride = total // origin
    picked = (origin - i * origin // steps for i in range(steps))
    return [schedule.t_to_sigma(k * stride - 1) for k in picked]


def _uniform(schedule: NoiseSchedule, count: int) -> list[float]:
    """Descending; counted upwards as in numpy, whose rounding decides ties of rounded grids."""
    last = schedule.num_train_timesteps - 1.0
    return linspace(0.0, last, count)[::-1] if count > 1 else [last]


SPACINGS: dict[SpacingName, Spacing] = {
    "leading": _leading,
    "trailing": _trailing,
    "linspace": _linspace,
    "normal": _normal,
    "simple": _simple,
    "sgm_uniform": _sgm_uniform,
    "ddim_uniform": _ddim_uniform,
    "karras": _karras,
    "exponential": _exponential,
    "polyexponential": _polyexponential,
    "beta": _beta,
    "ays": _ays,
    "kl_optimal": _kl_optimal,
    "lcm": _lcm,
}
