"""scheduler_config.json -> NoiseConfig: the file as diffusers' scheduler classes read it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import UnsupportedCheckpoint, shown
from diffgen.jsonfile import JsonObject
from diffgen.models.checks import check_schedule
from diffgen.types import NoiseConfig, Prediction, SamplerName, SpacingName
from diffgen.weights.diffusers.options import one_of, refuse_other_values
from diffgen.weights.diffusers.scheduler_classes import (
    ALLOWED,
    CLASSES,
    CLIPPING,
    CURVES,
    DEFAULTS,
    EDM_ALLOWED,
    EDM_CLASSES,
    FLOW_ALLOWED,
    FLOW_CLASSES,
    FLOW_NOISE,
    FLOW_PREFIX,
    FLOW_SHIFTS,
    FLOW_WORDS,
    LINSPACE,
    NOISE,
    SIGMA_OPTIONS,
    UNKNOWN,
    SchedulerClass,
)

BetaSchedule: TypeAlias = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]

PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "sample"}
BETA_SCHEDULES: Sequence[BetaSchedule] = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS: Sequence[SpacingName] = ("leading", "trailing", "linspace")

# Fields with other names in the file.
KEYS = {
    "betas": "trained_betas",
    "clip": "clip_sample_range",
    "distilled_steps": "original_inference_steps",
}


def read_schedule(config: JsonObject, class_name: str, asked: Collection[str] = ()) -> NoiseConfig:
    """Read scheduler_config.json as diffusers' scheduler `class_name` would.

    An unsupported class or option is no error yet: the same file describes the noise that the model
    was trained with, and a user may choose another sampler. `asked` are the fields that the user
    sets ("prediction", "shift"), for which the file is not asked. Raises UnsupportedCheckpoint for
    another kind of noise and ConfigError for impossible numbers.
    """
    if _is_flow(config, class_name, asked):
        schedule = _flow(config, class_name, asked)
    elif class_name in EDM_CLASSES:
        schedule = _edm(config, class_name)
    elif config.data.get("timestep_type") == "continuous" and _predicts_v(config):
        schedule = _continuous(config, class_name)
    else:
        schedule = _on_betas(config, class_name, asked)
    check_schedule(schedule, lambda name: config.named(KEYS.get(name, name)))
    return schedule


def _on_betas(config: JsonObject, class_name: str, asked: Collection[str]) -> NoiseConfig:
    """The noise of a DDPM table."""
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
    noise = NoiseConfig(
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
    clipped = _clips_steps(read, noise) if class_name in CLIPPING else None
    return replace(noise, unsupported=noise.unsupported or clipped)


def _clips_steps(config: JsonObject, noise: NoiseConfig) -> str | None:
    """Why the file's sampler is unsupported if it leaves out the noisiest timesteps.

    Those are where log(alpha / sigma) is below a number, on most tables nowhere.
    """
    least = config.get("lambda_min_clipped", -math.inf)
    lowest = -math.log(NoiseSchedule.from_config(noise).sigma_max)
    if not lowest < least:
        return None
    return f'{config.path}: "lambda_min_clipped" is {least:g}, which cuts noise of {lowest:.3g} off'


def _is_flow(config: JsonObject, class_name: str, asked: Collection[str]) -> bool:
    if class_name.startswith(FLOW_PREFIX):
        return True
    by_option = bool(config.data.get("use_flow_sigmas"))
    return "prediction" not in asked and (
        by_option or config.data.get("prediction_type") in FLOW_WORDS
    )


def _predicts_v(config: JsonObject) -> bool:
    return config.data.get("prediction_type") == "v_prediction"


def _edm(config: JsonObject, class_name: str) -> NoiseConfig:
    """The noise of EDM (arXiv:2206.00364)."""
    curve = JsonObject(config.path, {"sigma_schedule": config.get("sigma_schedule", "karras")})
    return NoiseConfig(
        prediction="edm_v" if _predicts_v(config) else "edm",
        sigma_min=config.get("sigma_min", 0.002),
        sigma_max=config.get("sigma_max", 80.0),
        sigma_data=config.get("sigma_data", 0.5),
        num_train_timesteps=config.get("num_train_timesteps", 1000),
        sampler=EDM_CLASSES[class_name],
        spacing=one_of(curve, "sigma_schedule", CURVES),
        unsupported=_why_not(config, EDM_ALLOWED),
    )


def _continuous(config: JsonObject, class_name: str) -> NoiseConfig:
    """The noise of v on EDM's sigmas, under a class for betas: CosXL's."""
    return NoiseConfig(
        prediction="edm_v",
        sigma_min=config.get("sigma_min", 0.002),
        sigma_max=config.get("sigma_max", 80.0),
        sigma_data=config.get("sigma_data", 1.0),
        num_train_timesteps=config.get("num_train_timesteps", 1000),
        sampler=CLASSES.get(class_name, UNKNOWN).sampler,
        spacing=_spacing(JsonObject(config.path, {**config.data, **LINSPACE})),
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
        spacing=_spacing(JsonObject(config.path, {**config.data, **LINSPACE})),
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
