"""scheduler_config.json -> NoiseConfig: the meaning of each diffusers scheduler class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from diffgen.errors import UnsupportedCheckpoint, shown
from diffgen.jsonfile import JsonObject
from diffgen.models.checks import check_schedule
from diffgen.types import NoiseConfig, Prediction, SamplerName, SpacingName
from diffgen.weights.diffusers.options import one_of, refuse_other_values

Options: TypeAlias = Mapping[str, Any]
BetaSchedule: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]

PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "sample"}
BETA_SCHEDULES: Sequence[BetaSchedule] = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS: Sequence[SpacingName] = ("leading", "trailing", "linspace")
SIGMA_OPTIONS: Mapping[str, SpacingName] = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}

# Fields with other names in the file.
KEYS = {
    "betas": "trained_betas",
    "clip": "clip_sample_range",
    "distilled_steps": "original_inference_steps",
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


CLASSES: Mapping[str, SchedulerClass] = {
    "DDPMScheduler": SchedulerClass(
        "ddpm",
        defaults={"timestep_spacing": "leading", "clip_sample": True},
        ignored=NO_SIGMAS,
        allowed={"variance_type": ("fixed_small", "fixed_small_log")},
    ),
    "DDIMScheduler": SchedulerClass(
        "ddim", defaults={"timestep_spacing": "leading", "clip_sample": True}, ignored=NO_SIGMAS
    ),
    "DDIMParallelScheduler": SchedulerClass(
        "ddim", defaults={"timestep_spacing": "leading", "clip_sample": True}, ignored=NO_SIGMAS
    ),
    "DDPMParallelScheduler": SchedulerClass(
        "ddpm",
        defaults={"timestep_spacing": "leading", "clip_sample": True},
        ignored=NO_SIGMAS,
        allowed={"variance_type": ("fixed_small", "fixed_small_log")},
    ),
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

FLOW_CLASSES: Mapping[str, SamplerName] = {
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
}
FLOW_PREFIX = "FlowMatch"
FLOW_WORDS = {"flow_prediction", "flow"}
# Shifts that depend on the size of the picture belong to other families of models.
FLOW_SHIFTS: Mapping[str, Sequence[object]] = {"use_dynamic_shifting": (False,)}
FLOW_NOISE: Mapping[str, Sequence[object]] = {"invert_sigmas": (False,)}
FLOW_ALLOWED: Mapping[str, Sequence[object]] = {
    "shift_terminal": (),
    "stochastic_sampling": (False,),
    "use_flow_sigmas": (False,),
}
FLOW_SPACING: Options = {"timestep_spacing": "linspace"}
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


def read_schedule(config: JsonObject, class_name: str, asked: Collection[str] = ()) -> NoiseConfig:
    """Read scheduler_config.json as diffusers' scheduler `class_name` would.

    An unsupported class or option is no error yet: the same file describes the noise that the model
    was trained with, and a user may choose another sampler. `asked` are the fields that the user
    sets ("prediction", "shift"), for which the file is not asked. Raises UnsupportedCheckpoint for
    another kind of noise and ConfigError for impossible numbers.
    """
    if other := _other_noise(config, class_name, asked):
        check_schedule(other, lambda name: config.named(KEYS.get(name, name)))
        return other
    kind = CLASSES.get(class_name, UNKNOWN)
    if kind is UNKNOWN and not isinstance(config.data.get("beta_schedule"), str):
        raise UnsupportedCheckpoint(
            f"{config.path}: the scheduler class {shown(class_name)} is not supported, and no "
            '"beta_schedule" tells the noise that the model was trained with '
            f"(supported: {', '.join(CLASSES)})"
        )
    given = {key: value for key, value in config.data.items() if value is not None}
    read = JsonObject(config.path, {**DEFAULTS, **kind.defaults, **given, **kind.ignored})
    if "prediction" in asked:
        read = JsonObject(config.path, {**read.data, "prediction_type": None})
    else:
        refuse_other_values(read, NOISE)
    schedule = NoiseConfig(
        beta_schedule=one_of(read, "beta_schedule", BETA_SCHEDULES),
        beta_start=read.get("beta_start", 0.0),
        beta_end=read.get("beta_end", 0.0),
        betas=read.many("trained_betas", float),
        num_train_timesteps=read.get("num_train_timesteps", 1000),
        prediction=PREDICTIONS[one_of(read, "prediction_type", tuple(PREDICTIONS))],
        zero_snr=read.get("rescale_betas_zero_snr", False),
        steps_offset=read.get("steps_offset", 0),
        final_alpha_one=read.optional("set_alpha_to_one", bool),
        clip=read.get("clip_sample_range", 1.0) if read.get("clip_sample", False) else None,
        sampler=_sampler(read, kind),
        spacing=_spacing(read),
        distilled_steps=read.get("original_inference_steps", 50),
        unsupported=_unsupported(read, kind, class_name),
    )
    check_schedule(schedule, lambda name: config.named(KEYS.get(name, name)))
    return schedule


def _other_noise(config: JsonObject, class_name: str, asked: Collection[str]) -> NoiseConfig | None:
    """The schedule of a flow or EDM model; None for betas."""
    told = {
        config.data.get("prediction_type"),
        "flow" if config.data.get("use_flow_sigmas") else "",
    }
    if class_name.startswith(FLOW_PREFIX) or ("prediction" not in asked and told & FLOW_WORDS):
        return _flow(config, class_name, asked)
    continuous = config.data.get("timestep_type") == "continuous"
    v = config.data.get("prediction_type") == "v_prediction"
    if class_name not in EDM_CLASSES and not (continuous and v):
        return None
    kind = CLASSES.get(class_name)
    curve = config.get("sigma_schedule", "karras" if class_name in EDM_CLASSES else "linspace")
    spacing = JsonObject(config.path, {**config.data, "timestep_spacing": "linspace"})
    plain = class_name in EDM_CLASSES
    return NoiseConfig(
        prediction="edm_v" if v else "edm",
        sigma_min=config.get("sigma_min", 0.002),
        sigma_max=config.get("sigma_max", 80.0),
        sigma_data=config.get("sigma_data", 0.5 if plain else 1.0),
        num_train_timesteps=config.get("num_train_timesteps", 1000),
        sampler=EDM_CLASSES[class_name] if plain else (kind.sampler if kind else "euler"),
        spacing=one_of(JsonObject(config.path, {"sigma_schedule": curve}), "sigma_schedule", CURVES)
        if plain
        else _spacing(spacing),
        unsupported=_why_not(config, EDM_ALLOWED) if plain else None,
    )


def _flow(config: JsonObject, class_name: str, asked: Collection[str]) -> NoiseConfig:
    refuse_other_values(config, FLOW_NOISE)
    if "shift" not in asked and (why := _why_not(config, FLOW_SHIFTS)):
        raise UnsupportedCheckpoint(f"{why}; set a shift with --shift")
    own = FLOW_CLASSES.get(class_name)
    return NoiseConfig(
        prediction="flow",
        shift=config.get("shift" if own else "flow_shift", config.get("shift", 1.0)),
        num_train_timesteps=config.get("num_train_timesteps", 1000),
        sampler=own or CLASSES.get(class_name, UNKNOWN).sampler,
        spacing=_spacing(JsonObject(config.path, {**config.data, **FLOW_SPACING})),
        unsupported=_why_not(config, FLOW_ALLOWED) if own else _no_class(config, class_name),
    )


def _no_class(config: JsonObject, class_name: str) -> str:
    """The reason why a class's sampler is unsupported, at least on this model's noise."""
    on_flow = " on a flow" if class_name in CLASSES else ""
    return f"{config.path}: the scheduler class {shown(class_name)} is not supported{on_flow}"


def _why_not(config: JsonObject, allowed: Mapping[str, Sequence[object]]) -> str | None:
    """The option, with file and key, that makes a sampler unsupported; None if none does."""
    try:
        refuse_other_values(config, allowed)
    except UnsupportedCheckpoint as error:
        return str(error)
    return None


def _unsupported(config: JsonObject, kind: SchedulerClass, class_name: str) -> str | None:
    """Why the file's sampler is unsupported, with file and key; None if it is supported."""
    if kind is UNKNOWN:
        return _no_class(config, class_name)
    return _why_not(config, {**ALLOWED, **kind.allowed})


def _sampler(config: JsonObject, kind: SchedulerClass) -> SamplerName:
    for (key, value), sampler in kind.variants.items():
        if config.data.get(key) == value:
            return sampler
    return kind.sampler


def _spacing(config: JsonObject) -> SpacingName:
    for key, name in SIGMA_OPTIONS.items():
        if config.get(key, False):
            return name
    return one_of(config, "timestep_spacing", SPACINGS)
