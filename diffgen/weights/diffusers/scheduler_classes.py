"""diffusers' scheduler classes as tables: the sampler, defaults and supported options of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from diffgen.types import SamplerName, SpacingName

Options: TypeAlias = Mapping[str, Any]

SIGMA_OPTIONS: Mapping[str, SpacingName] = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}

# Defaults of most classes.
DEFAULTS: Options = {
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "clip_sample": False,
    "clip_sample_range": 1.0,
}
SD_BETAS: Options = {"beta_start": 0.00085, "beta_end": 0.012}

# Options that change the picture, with the values that diffgen's samplers reproduce.
ALLOWED: Mapping[str, Sequence[object]] = {
    "thresholding": (False,),
    "interpolation_type": ("linear",),
    "final_sigmas_type": ("zero",),
    "sigma_min": (),
    "sigma_max": (),
    "use_lu_lambdas": (False,),
}
# Options for noise other than a table of betas: no other sampler helps.
NOISE: Mapping[str, Sequence[object]] = {"timestep_type": ("discrete",)}

# Options that a class ignores, at the equivalent value.
NO_CLIP: Options = {"clip_sample": False}
NO_SIGMAS: Options = dict.fromkeys(SIGMA_OPTIONS, False)
NO_SPACING: Options = {"timestep_spacing": "trailing"}  # closest to the steps of LCM and TCD

# Left over from switching classes with `from_config`; diffusers reads them as its default.
FOREIGN_SOLVER_TYPES = ("logrho", "bh1", "bh2")


@dataclass(frozen=True, slots=True)
class SchedulerClass:
    """A diffusers scheduler class: diffgen's sampler for it, and how it reads its JSON.

    `defaults` differ from DEFAULTS, `ignored` overrides the JSON, `allowed` adds to ALLOWED,
    `variants` are the (option, value) pairs that select another sampler.
    """

    sampler: SamplerName
    defaults: Options = field(default_factory=dict)
    ignored: Options = field(default_factory=lambda: NO_CLIP)
    allowed: Mapping[str, Sequence[object]] = field(default_factory=dict)
    variants: Mapping[tuple[str, str], SamplerName] = field(default_factory=dict)


_DDPM = SchedulerClass(
    "ddpm",
    defaults={"timestep_spacing": "leading", "clip_sample": True},
    ignored=NO_SIGMAS,
    allowed={"variance_type": ("fixed_small", "fixed_small_log")},
)
_DDIM = SchedulerClass(
    "ddim", defaults={"timestep_spacing": "leading", "clip_sample": True}, ignored=NO_SIGMAS
)
CLASSES: Mapping[str, SchedulerClass] = {
    "DDPMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "DDIMScheduler": _DDIM,
    "DDIMParallelScheduler": _DDIM,
    "PNDMScheduler": SchedulerClass(
        "plms",
        defaults={
            "timestep_spacing": "leading",
            "skip_prk_steps": False,
        },
        ignored={**NO_CLIP, **NO_SIGMAS},
        allowed={"skip_prk_steps": (True,)},
    ),
    "EulerDiscreteScheduler": SchedulerClass("euler"),
    "EulerAncestralDiscreteScheduler": SchedulerClass("euler_a", ignored={**NO_CLIP, **NO_SIGMAS}),
    "HeunDiscreteScheduler": SchedulerClass("heun", defaults=SD_BETAS, ignored={}),
    "KDPM2DiscreteScheduler": SchedulerClass("dpm2", defaults=SD_BETAS),
    "KDPM2AncestralDiscreteScheduler": SchedulerClass("dpm2_a", defaults=SD_BETAS),
    "LMSDiscreteScheduler": SchedulerClass("lms"),
    "DPMSolverSDEScheduler": SchedulerClass("dpmpp_sde", defaults=SD_BETAS),
    "DPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp_2m",
        allowed={
            "solver_order": (2,),
            "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
            "solver_type": ("midpoint", *FOREIGN_SOLVER_TYPES),
            "variance_type": (),
        },
        variants={("algorithm_type", "sde-dpmsolver++"): "dpmpp_2m_sde"},
    ),
    "DEISMultistepScheduler": SchedulerClass(
        "deis",
        allowed={
            "solver_order": (2,),
            "algorithm_type": ("deis", "dpmsolver", "dpmsolver++"),
        },
    ),
    "UniPCMultistepScheduler": SchedulerClass(
        "unipc",
        allowed={
            "solver_order": (2,),
            "predict_x0": (True,),
            "disable_corrector": ([],),
            "solver_p": (),
        },
        variants={("solver_type", "bh1"): "unipc_bh1"},
    ),
    "LCMScheduler": SchedulerClass(
        "lcm",
        defaults={"beta_schedule": "scaled_linear", **SD_BETAS},
        ignored={**NO_SIGMAS, **NO_SPACING},
        allowed={"timestep_scaling": (10.0,)},
    ),
    "TCDScheduler": SchedulerClass(
        "tcd",
        defaults={"beta_schedule": "scaled_linear", **SD_BETAS},
        ignored={**NO_SIGMAS, **NO_SPACING},
    ),
    "SASolverScheduler": SchedulerClass(
        "sa_solver",
        allowed={
            "predictor_order": (2,),
            "corrector_order": (2,),
            "algorithm_type": ("data_prediction",),
            "tau_func": (),
            "variance_type": (),
        },
    ),
}

# Classes that read `lambda_min_clipped`.
CLIPPING = ("DPMSolverMultistepScheduler", "SASolverScheduler")
FLOW_CLASSES: Mapping[str, SamplerName] = {
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
}
FLOW_PREFIX = "FlowMatch"
FLOW_WORDS = ("flow_prediction", "flow")
# Shifts that depend on the size of the picture belong to other families of models.
FLOW_SHIFTS: Mapping[str, Sequence[object]] = {"use_dynamic_shifting": (False,)}
FLOW_NOISE: Mapping[str, Sequence[object]] = {"invert_sigmas": (False,)}
FLOW_ALLOWED: Mapping[str, Sequence[object]] = {
    "shift_terminal": (),
    "stochastic_sampling": (False,),
    "use_flow_sigmas": (False,),
}
LINSPACE: Options = {"timestep_spacing": "linspace"}
EDM_CLASSES: Mapping[str, SamplerName] = {
    "EDMEulerScheduler": "euler",
    "EDMDPMSolverMultistepScheduler": "dpmpp_2m",
}
EDM_ALLOWED: Mapping[str, Sequence[object]] = {
    "solver_order": (2,),
    "algorithm_type": ("dpmsolver++",),
    "solver_type": ("midpoint",),
    "thresholding": (False,),
    "final_sigmas_type": ("zero",),
    "rho": (7.0,),
}
CURVES: Sequence[SpacingName] = ("karras", "exponential")
UNKNOWN = SchedulerClass("euler")  # used for its noise only, never for its sampler
