"""The names other programs use for samplers and schedules, mapped to ours.

A1111 writes "DPM++ 2M Karras", ComfyUI `dpmpp_2m` + `karras`, diffusers class names. Mind two
traps: ComfyUI's `uni_pc` is the bh1 variant while diffusers' default is bh2; and `linear` /
`scaled_linear` are beta schedules (how a model was trained), not spacings.
"""

from __future__ import annotations

from typing import cast, get_args

from diffgen.errors import UsageError, did_you_mean
from diffgen.types import SamplerName, SpacingName

SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
SPACING_NAMES: tuple[SpacingName, ...] = get_args(SpacingName)

SAMPLER_ALIASES: dict[str, SamplerName] = {
    "ddpmscheduler": "ddpm",
    "ddimscheduler": "ddim",
    "pndm": "plms",
    "pndmscheduler": "plms",
    "ipndmscheduler": "ipndm",
    "k_euler": "euler",
    "eulerdiscretescheduler": "euler",
    "euler_ancestral": "euler_a",
    "k_euler_a": "euler_a",
    "k_euler_ancestral": "euler_a",
    "eulerancestraldiscretescheduler": "euler_a",
    "k_heun": "heun",
    "heundiscretescheduler": "heun",
    "dpm_2": "dpm2",
    "k_dpm_2": "dpm2",
    "kdpm2discretescheduler": "dpm2",
    "dpm_2_a": "dpm2_a",
    "dpm_2_ancestral": "dpm2_a",
    "dpm2_ancestral": "dpm2_a",
    "k_dpm_2_a": "dpm2_a",
    "kdpm2ancestraldiscretescheduler": "dpm2_a",
    "k_lms": "lms",
    "lmsdiscretescheduler": "lms",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "dpmsolvermultistepscheduler": "dpmpp_2m",
    "dpmsolverpp": "dpmpp_2m",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpmsolversdescheduler": "dpmpp_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "deismultistepscheduler": "deis",
    "uni_pc": "unipc_bh1",
    "uni_pc_bh1": "unipc_bh1",
    "uni_pc_bh2": "unipc",
    "unipc_bh2": "unipc",
    "unipcmultistepscheduler": "unipc",
    "lcmscheduler": "lcm",
    "tcdscheduler": "tcd",
    "sasolverscheduler": "sa_solver",
}
SPACING_ALIASES: dict[str, SpacingName] = {
    "uniform": "normal",
    "discrete": "normal",
    "default": "normal",
    "align_your_steps": "ays",
    "ddim": "ddim_uniform",
}
SPACING_LABELS: dict[SpacingName, str] = {  # as A1111 writes them, where it has them
    "leading": "Leading",
    "trailing": "Trailing",
    "linspace": "Linspace",
    "normal": "Normal",
    "simple": "Simple",
    "sgm_uniform": "SGM Uniform",
    "ddim_uniform": "DDIM",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "beta": "Beta",
    "ays": "Align Your Steps",
    "kl_optimal": "KL Optimal",
    "lcm": "LCM",
}
_BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "cosine", "sqrt_linear")


def parse_sampler(name: str) -> tuple[SamplerName, SpacingName | None]:
    """Our name of a sampler, and the schedule where the name carries one ("DPM++ 2M Karras").

    Raises UsageError for an unknown name, with the nearest known one.
    """
    key = _normal(name)
    if sampler := _find_sampler(key):
        return sampler, None
    stem, _, suffix = key.rpartition("_")
    if suffix in ("karras", "exponential") and (sampler := _find_sampler(stem)):
        return sampler, cast(SpacingName, suffix)
    hint = did_you_mean(key, [*SAMPLER_NAMES, *SAMPLER_ALIASES])
    raise UsageError(f'unknown sampler "{name}"{hint or "."} `diffgen samplers` lists them all')


def parse_spacing(name: str) -> SpacingName:
    """Our name of a schedule. Raises UsageError for an unknown name, with the nearest one."""
    key = _normal(name)
    if key in SPACING_NAMES:
        return key
    if key in SPACING_ALIASES:
        return SPACING_ALIASES[key]
    if key in _BETA_SCHEDULES:
        raise UsageError(
            f'"{name}" is a beta schedule, fixed when a model is trained and read from its config; '
            f"--schedule takes one of {', '.join(SPACING_NAMES)}"
        )
    hint = did_you_mean(key, [*SPACING_NAMES, *SPACING_ALIASES])
    raise UsageError(f'unknown schedule "{name}"{hint or "."} Known: {", ".join(SPACING_NAMES)}')


def known_sampler(_name: str, text: str) -> str:
    """The text itself, for it may hold a spacing. Raises UsageError for an unknown name."""
    parse_sampler(text)
    return text


def known_spacing(_name: str, text: str) -> SpacingName:
    """Our name. Raises UsageError for an unknown one."""
    return parse_spacing(text)


def _find_sampler(key: str) -> SamplerName | None:
    return key if key in SAMPLER_NAMES else SAMPLER_ALIASES.get(key)


def _normal(name: str) -> str:
    return name.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")
