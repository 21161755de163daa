"""The registry of samplers: one row each, with its paper, cost and conventions.

Rows are plain data and the functions behind them import no torch, so names can be checked and
tables printed before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from diffgen.diffusion.samplers import (
    consistency,
    dpm_solver,
    dpmpp,
    euler,
    multistep,
    sde,
    second_order,
    unipc,
)
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import Grid
from diffgen.types import SamplerName, ScheduleConfig, ScheduleName

if TYPE_CHECKING:
    from torch import Tensor

SamplerFn: TypeAlias = "Callable[..., Tensor]"
Prepare: TypeAlias = Callable[
    [ScheduleConfig, NoiseSchedule, Sequence[float], Mapping[str, float]], dict[str, Any]
]


def _settings(
    config: ScheduleConfig,
    schedule: NoiseSchedule,
    sigmas: Sequence[float],
    options: Mapping[str, float],
) -> dict[str, Any]:
    return dict(options)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSpec:
    """One sampler.

    `nfe(sigmas)` is the exact number of network evaluations of a run, None where the sampler
    decides while it runs. `options` are the settings a user may change, with their defaults.
    `noise` says where randomness comes from: nowhere, independent draws, or one Brownian path.

    Three conventions of diffusers decide whether the same seed gives the same picture: `grid`
    (see SpacingOptions), `start` (the state begins as noise times sigma, or times
    sqrt(1 + sigma^2) as in VP samplers) and `final` (a run over timesteps ends at 0 or at the
    first table entry, unless the checkpoint's `set_alpha_to_one` decides).
    """

    name: SamplerName
    label: str  # the name in A1111's list, which goes into the PNG
    fn: SamplerFn
    paper: str
    order: int
    evals_per_step: int = 1
    nfe: Callable[[Sequence[float]], int] | None = lambda sigmas: len(sigmas) - 1
    noise: Literal["none", "stream", "brownian"] = "none"
    options: Mapping[str, float] = field(default_factory=dict)
    grid: Grid = "exact"
    start: Literal["sigma", "vp"] = "sigma"
    final: Literal["zero", "table"] = "zero"
    final_by_checkpoint: bool = False
    schedule: ScheduleName | None = None  # for samplers that need one of their own
    distilled: bool = False  # meant for models distilled to few steps without guidance
    prepare: Prepare = field(default=_settings)  # keyword arguments of fn

    @property
    def stochastic(self) -> bool:
        return self.noise != "none"


def _two_per_step(sigmas: Sequence[float]) -> int:
    """Two evaluations a step, but one for the step that ends at 0."""
    return 2 * (len(sigmas) - 1) - (1 if sigmas[-1] == 0.0 else 0)


def _plms_nfe(sigmas: Sequence[float]) -> int:
    return len(sigmas) if len(sigmas) > 2 else 1


def _restart_nfe(sigmas: Sequence[float]) -> int:
    segment = second_order.restart_segment(sigmas)
    extra = 2 * (len(segment[1]) - 1) * segment[2] if segment else 0
    return _two_per_step(sigmas) + extra


def _plms_output(
    config: ScheduleConfig,
    schedule: NoiseSchedule,
    sigmas: Sequence[float],
    options: Mapping[str, float],
) -> dict[str, Any]:
    return {"combine_v": config.prediction == "v"}


def _tcd_landings(
    config: ScheduleConfig,
    schedule: NoiseSchedule,
    sigmas: Sequence[float],
    options: Mapping[str, float],
) -> dict[str, Any]:
    """Noise levels at s = floor((1 - eta) t_next), where each step's ODE part ends."""
    if options["eta"] == 0.0:
        return {"landings": sigmas[1:]}
    timesteps = [schedule.sigma_to_t(sigma) for sigma in sigmas[1:]]
    # Adding a hair before rounding down: t comes back from a logarithm.
    shortened = [int((1.0 - options["eta"]) * t + 1e-6) for t in timesteps]
    landings = [schedule.t_to_sigma(s) for s in shortened]
    return {"landings": [min(a, b) for a, b in zip(landings, sigmas[1:], strict=True)]}


def _sa_interval(
    config: ScheduleConfig,
    schedule: NoiseSchedule,
    sigmas: Sequence[float],
    options: Mapping[str, float],
) -> dict[str, Any]:
    """Stochastic between timesteps 200 and 800 of 1000, as the paper does on latent models."""
    last = schedule.num_train_timesteps
    low, high = schedule.t_to_sigma(0.2 * last), schedule.t_to_sigma(0.8 * last)
    return {"stochastic_between": (low, high)}


_ETA_1 = {"eta": 1.0}
_CHURN = {"s_churn": 0.0}

_ROWS = (
    SamplerSpec(
        name="ddpm",
        label="DDPM",
        fn=partial(euler.sample_euler_ancestral, eta=1.0),
        paper="arXiv:2006.11239",
        order=1,
        noise="stream",
        grid="rounded",
        start="vp",
    ),
    SamplerSpec(
        name="ddim",
        label="DDIM",
        fn=euler.sample_euler_ancestral,
        paper="arXiv:2010.02502",
        order=1,
        options={"eta": 0.0},
        grid="rounded",
        start="vp",
        final_by_checkpoint=True,
    ),
    SamplerSpec(
        name="plms",
        label="PLMS",
        fn=multistep.sample_plms,
        paper="arXiv:2202.09778",
        order=2,
        nfe=_plms_nfe,
        prepare=_plms_output,
        grid="rounded",
        start="vp",
        final="table",
        final_by_checkpoint=True,
    ),
    SamplerSpec(
        name="ipndm",
        label="IPNDM",
        fn=multistep.sample_ipndm,
        paper="arXiv:2204.13902",
        order=2,
    ),
    SamplerSpec(
        name="euler",
        label="Euler",
        fn=euler.sample_euler,
        paper="arXiv:2206.00364",
        order=1,
        options=_CHURN,
    ),
    SamplerSpec(
        name="euler_a",
        label="Euler a",
        fn=euler.sample_euler_ancestral,
        paper="arXiv:2010.02502",
        order=1,
        noise="stream",
        options=_ETA_1,
    ),
    SamplerSpec(
        name="heun",
        label="Heun",
        fn=second_order.sample_heun,
        paper="arXiv:2206.00364",
        order=2,
        evals_per_step=2,
        nfe=_two_per_step,
        options=_CHURN,
    ),
    SamplerSpec(
        name="dpm2",
        label="DPM2",
        fn=second_order.sample_dpm2,
        paper="arXiv:2206.00927",
        order=2,
        evals_per_step=2,
        nfe=_two_per_step,
    ),
    SamplerSpec(
        name="dpm2_a",
        label="DPM2 a",
        fn=second_order.sample_dpm2,
        paper="arXiv:2206.00927",
        order=2,
        evals_per_step=2,
        nfe=_two_per_step,
        noise="stream",
        options=_ETA_1,
    ),
    SamplerSpec(
        name="lms",
        label="LMS",
        fn=multistep.sample_lms,
        paper="Adams-Bashforth in sigma",
        order=4,
    ),
    SamplerSpec(
        name="dpmpp_2s_a",
        label="DPM++ 2S a",
        fn=dpmpp.sample_dpmpp_2s_ancestral,
        paper="arXiv:2211.01095",
        order=2,
        evals_per_step=2,
        nfe=_two_per_step,
        noise="stream",
        options=_ETA_1,
    ),
    SamplerSpec(
        name="dpmpp_2m",
        label="DPM++ 2M",
        fn=dpmpp.sample_dpmpp_2m,
        paper="arXiv:2211.01095",
        order=2,
        grid="extra",
        start="vp",
    ),
    SamplerSpec(
        name="dpmpp_sde",
        label="DPM++ SDE",
        fn=dpmpp.sample_dpmpp_sde,
        paper="arXiv:2211.01095",
        order=2,
        evals_per_step=2,
        nfe=_two_per_step,
        noise="brownian",
        options=_ETA_1,
    ),
    SamplerSpec(
        name="dpmpp_2m_sde",
        label="DPM++ 2M SDE",
        fn=dpmpp.sample_dpmpp_2m_sde,
        paper="arXiv:2211.01095",
        order=2,
        noise="stream",
        options=_ETA_1,
        grid="extra",
        start="vp",
    ),
    SamplerSpec(
        name="dpmpp_3m_sde",
        label="DPM++ 3M SDE",
        fn=dpmpp.sample_dpmpp_3m_sde,
        paper="arXiv:2211.01095",
        order=2,
        noise="brownian",
        options=_ETA_1,
        grid="extra",
        start="vp",
    ),
    SamplerSpec(
        name="dpm_fast",
        label="DPM fast",
        fn=dpm_solver.sample_dpm_fast,
        paper="arXiv:2206.00927",
        order=3,
    ),
    SamplerSpec(
        name="dpm_adaptive",
        label="DPM adaptive",
        fn=dpm_solver.sample_dpm_adaptive,
        paper="arXiv:2206.00927",
        order=3,
        evals_per_step=3,
        nfe=None,
    ),
    SamplerSpec(
        name="deis",
        label="DEIS",
        fn=multistep.sample_deis,
        paper="arXiv:2204.13902",
        order=2,
        grid="extra",
        start="vp",
        final="table",
    ),
    SamplerSpec(
        name="unipc",
        label="UniPC",
        fn=partial(unipc.sample_unipc, variant="bh2"),
        paper="arXiv:2302.04867",
        order=2,
        grid="extra",
        start="vp",
    ),
    SamplerSpec(
        name="unipc_bh1",
        label="UniPC bh1",
        fn=partial(unipc.sample_unipc, variant="bh1"),
        paper="arXiv:2302.04867",
        order=2,
        grid="extra",
        start="vp",
    ),
    SamplerSpec(
        name="lcm",
        label="LCM",
        fn=consistency.sample_lcm,
        paper="arXiv:2310.04378",
        order=1,
        noise="stream",
        start="vp",
        schedule="lcm",
        distilled=True,
    ),
    SamplerSpec(
        name="tcd",
        label="TCD",
        fn=consistency.sample_tcd,
        paper="arXiv:2402.19159",
        order=1,
        noise="stream",
        options={"eta": 0.3},
        start="vp",
        final="table",
        schedule="lcm",
        distilled=True,
        prepare=_tcd_landings,
    ),
    SamplerSpec(
        name="restart",
        label="Restart",
        fn=second_order.sample_restart,
        paper="arXiv:2306.14878",
        order=2,
        evals_per_step=2,
        nfe=_restart_nfe,
        noise="stream",
    ),
    SamplerSpec(
        name="er_sde",
        label="ER SDE",
        fn=sde.sample_er_sde,
        paper="arXiv:2309.06169",
        order=2,
        noise="brownian",
    ),
    SamplerSpec(
        name="sa_solver",
        label="SA Solver",
        fn=sde.sample_sa_solver,
        paper="arXiv:2309.05019",
        order=2,
        noise="stream",
        grid="extra",
        start="vp",
        final="table",
        prepare=_sa_interval,
    ),
)

SAMPLERS: Mapping[SamplerName, SamplerSpec] = MappingProxyType({row.name: row for row in _ROWS})
