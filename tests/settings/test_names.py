"""The names of other programs, and the messages for names nobody knows."""

from typing import get_args

import pytest

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.spacing import SPACINGS
from diffgen.errors import UsageError
from diffgen.settings.names import (
    SAMPLER_ALIASES,
    SAMPLER_NAMES,
    SPACING_ALIASES,
    SPACING_LABELS,
    SPACING_NAMES,
    parse_sampler,
    parse_spacing,
)
from diffgen.types import SamplerName, SpacingName

A1111 = {
    "DPM++ 2M": ("dpmpp_2m", None),
    "DPM++ 2M Karras": ("dpmpp_2m", "karras"),
    "DPM++ SDE Karras": ("dpmpp_sde", "karras"),
    "DPM++ 2M SDE Exponential": ("dpmpp_2m_sde", "exponential"),
    "DPM++ 2M SDE Karras": ("dpmpp_2m_sde", "karras"),
    "DPM++ 3M SDE": ("dpmpp_3m_sde", None),
    "DPM++ 2S a Karras": ("dpmpp_2s_a", "karras"),
    "Euler a": ("euler_a", None),
    "Euler": ("euler", None),
    "LMS": ("lms", None),
    "LMS Karras": ("lms", "karras"),
    "Heun": ("heun", None),
    "DPM2": ("dpm2", None),
    "DPM2 a Karras": ("dpm2_a", "karras"),
    "DPM fast": ("dpm_fast", None),
    "DPM adaptive": ("dpm_adaptive", None),
    "Restart": ("restart", None),
    "DDIM": ("ddim", None),
    "PLMS": ("plms", None),
    "UniPC": ("unipc", None),
    "LCM": ("lcm", None),
}
COMFYUI = {
    "euler_ancestral": "euler_a",
    "heun": "heun",
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "lms": "lms",
    "dpm_fast": "dpm_fast",
    "dpm_adaptive": "dpm_adaptive",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "dpmpp_sde_gpu": "dpmpp_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "ipndm": "ipndm",
    "deis": "deis",
    "er_sde": "er_sde",
    "sa_solver": "sa_solver",
    "uni_pc": "unipc_bh1",
    "uni_pc_bh2": "unipc",
}
DIFFUSERS = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "plms",
    "IPNDMScheduler": "ipndm",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_a",
    "HeunDiscreteScheduler": "heun",
    "KDPM2DiscreteScheduler": "dpm2",
    "KDPM2AncestralDiscreteScheduler": "dpm2_a",
    "LMSDiscreteScheduler": "lms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "DPMSolverSDEScheduler": "dpmpp_sde",
    "DEISMultistepScheduler": "deis",
    "UniPCMultistepScheduler": "unipc",
    "SASolverScheduler": "sa_solver",
    "LCMScheduler": "lcm",
    "TCDScheduler": "tcd",
}


def test_the_literals_are_the_registries() -> None:
    assert get_args(SamplerName) == SAMPLER_NAMES == tuple(SAMPLERS)
    assert get_args(SpacingName) == SPACING_NAMES == tuple(SPACINGS) == tuple(SPACING_LABELS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_our_own_sampler_names_are_known(name: SamplerName) -> None:
    assert parse_sampler(name) == (name, None)
    assert parse_sampler(name.upper()) == (name, None)
    assert parse_sampler(f"{name}_karras") == (name, "karras")


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_label_in_a_picture_is_read_back(name: SamplerName) -> None:
    assert parse_sampler(SAMPLERS[name].label) == (name, None)


@pytest.mark.parametrize("name", SPACINGS)
def test_our_own_schedule_names_and_labels_are_known(name: SpacingName) -> None:
    assert parse_spacing(name) == parse_spacing(name.upper()) == name
    assert parse_spacing(SPACING_LABELS[name]) == name


@pytest.mark.parametrize("alias", SAMPLER_ALIASES)
def test_sampler_aliases_lead_to_rows(alias: str) -> None:
    name, schedule = parse_sampler(alias)
    assert name == SAMPLER_ALIASES[alias]
    assert name in SAMPLERS
    assert schedule is None
    assert alias not in SAMPLERS  # else it would never be looked up
    assert alias == alias.lower()


@pytest.mark.parametrize("alias", SPACING_ALIASES)
def test_schedule_aliases_lead_to_rows(alias: str) -> None:
    assert parse_spacing(alias) == SPACING_ALIASES[alias]
    assert SPACING_ALIASES[alias] in SPACINGS
    assert alias not in SPACINGS


@pytest.mark.parametrize("label", A1111)
def test_a1111_labels(label: str) -> None:
    assert parse_sampler(label) == A1111[label]


@pytest.mark.parametrize("name", COMFYUI)
def test_comfyui_names(name: str) -> None:
    """Mind uni_pc: bh1 there, while UniPCMultistepScheduler is bh2."""
    assert parse_sampler(name) == (COMFYUI[name], None)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_diffusers_classes(name: str) -> None:
    assert parse_sampler(name) == (DIFFUSERS[name], None)


@pytest.mark.parametrize(
    "name", ["dpmpp 2m karras", " DPM++ 2M Karras ", "dpm++-2m-karras", "DPMPP_2M_KARRAS"]
)
def test_spelling_is_forgiving(name: str) -> None:
    assert parse_sampler(name) == ("dpmpp_2m", "karras")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Align Your Steps", "ays"),
        ("SGM Uniform", "sgm_uniform"),
        ("KL Optimal", "kl_optimal"),
        ("Uniform", "normal"),
        ("DDIM", "ddim_uniform"),
    ],
)
def test_a1111_schedule_labels(name: str, expected: SpacingName) -> None:
    assert parse_spacing(name) == expected


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "Cosine"])
def test_beta_schedules_are_not_spacings(name: str) -> None:
    with pytest.raises(UsageError, match=f'"{name}" is a beta schedule.*karras'):
        parse_spacing(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("eulr", "euler"), ("dpmpp_2", "dpmpp_2m"), ("unipcc", "unipc"), ("DPM++ 2N", "dpmpp_2m")],
)
def test_unknown_samplers_suggest_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_sampler(name)
    assert f'unknown sampler "{name}"' in str(caught.value)
    assert f'Did you mean "{suggestion}"?' in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "suggestion"), [("karas", "karras"), ("trailng", "trailing")])
def test_unknown_schedules_suggest_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spacing(name)
    assert f'Did you mean "{suggestion}"?' in str(caught.value)
    assert all(known in str(caught.value) for known in SPACINGS)


@pytest.mark.parametrize("name", ["", "karras", "_karras", "banana", "euler_beta"])
def test_what_is_no_sampler_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown sampler"):
        parse_sampler(name)
