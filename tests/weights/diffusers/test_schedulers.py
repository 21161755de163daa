"""diffgen.weights.diffusers.schedulers: scheduler_config.json as diffusers' classes read it."""

import inspect
import math
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest

from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import ConfigError, UnsupportedCheckpoint
from diffgen.jsonfile import JsonObject
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig, SamplerName, SpacingName
from diffgen.weights.diffusers.layout import schedule_json, scheduler_class
from diffgen.weights.diffusers.scheduler_classes import CLASSES
from diffgen.weights.diffusers.schedulers import read_schedule

PLAYGROUND = Path(__file__).parents[2] / "data/configs/playground-v2.5/scheduler.json"


def schedule(class_name: str, **options: Any) -> NoiseConfig:
    if class_name == "PNDMScheduler":
        options = {"skip_prk_steps": True} | options
    return read_schedule(JsonObject(Path("scheduler_config.json"), options), class_name)


@pytest.mark.parity
@pytest.mark.parametrize("class_name", CLASSES)
def test_defaults_are_those_of_the_class(class_name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations on import
        import diffusers

    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    expected = {name: parameter.default for name, parameter in parameters.items()}
    config = schedule(class_name)
    assert config.beta_schedule == expected["beta_schedule"]
    assert (config.beta_start, config.beta_end) == (expected["beta_start"], expected["beta_end"])
    assert config.final_alpha_one is None  # the sampler's own default, which a test of it checks
    assert config.steps_offset == expected["steps_offset"]
    assert config.clip == (expected["clip_sample_range"] if expected.get("clip_sample") else None)
    if class_name not in ("LCMScheduler", "TCDScheduler"):  # which read no timestep_spacing
        assert config.spacing == expected["timestep_spacing"]


@pytest.mark.parametrize(
    ("class_name", "options", "sampler"),
    [
        ("DDPMScheduler", {}, "ddpm"),
        ("DDIMScheduler", {}, "ddim"),
        ("PNDMScheduler", {}, "plms"),
        ("EulerDiscreteScheduler", {}, "euler"),
        ("EulerAncestralDiscreteScheduler", {}, "euler_a"),
        ("HeunDiscreteScheduler", {}, "heun"),
        ("KDPM2DiscreteScheduler", {}, "dpm2"),
        ("KDPM2AncestralDiscreteScheduler", {}, "dpm2_a"),
        ("LMSDiscreteScheduler", {}, "lms"),
        ("DPMSolverMultistepScheduler", {}, "dpmpp_2m"),
        (
            "DPMSolverMultistepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "solver_type": "bh1"},
            "dpmpp_2m_sde",
        ),
        ("DPMSolverSDEScheduler", {}, "dpmpp_sde"),
        ("DEISMultistepScheduler", {}, "deis"),
        ("UniPCMultistepScheduler", {}, "unipc"),
        ("UniPCMultistepScheduler", {"solver_type": "bh1"}, "unipc_bh1"),
        ("LCMScheduler", {}, "lcm"),
        ("TCDScheduler", {}, "tcd"),
        ("SASolverScheduler", {}, "sa_solver"),
    ],
)
def test_samplers(class_name: str, options: dict[str, Any], sampler: SamplerName) -> None:
    assert schedule(class_name, **options).sampler == sampler


@pytest.mark.parametrize(
    ("class_name", "options", "spacing"),
    [
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, "trailing"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, "karras"),
        ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, "exponential"),
        ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "beta"),
        ("DDIMScheduler", {"use_karras_sigmas": True}, "leading"),
        ("LCMScheduler", {"timestep_spacing": "leading"}, "trailing"),
    ],
)
def test_spacings(class_name: str, options: dict[str, Any], spacing: SpacingName) -> None:
    assert schedule(class_name, **options).spacing == spacing


@pytest.mark.parametrize(
    ("name", "ours"), [("epsilon", "eps"), ("v_prediction", "v"), ("sample", "sample")]
)
def test_predictions(name: str, ours: str) -> None:
    assert schedule("DDIMScheduler", prediction_type=name).prediction == ours


def test_zero_terminal_snr_and_trained_betas() -> None:
    options = {"trained_betas": [0.1, 0.2], "num_train_timesteps": 2}
    config = schedule("DDIMScheduler", rescale_betas_zero_snr=True, **options)
    assert config.zero_snr
    assert config.betas == (0.1, 0.2)


def test_the_grid_of_a_consistency_model() -> None:
    assert schedule("LCMScheduler").distilled_steps == 50
    assert schedule("LCMScheduler", original_inference_steps=25).distilled_steps == 25
    with pytest.raises(ConfigError, match=r"original_inference_steps.* must be from 1"):
        schedule("LCMScheduler", original_inference_steps=0)


def test_clipping() -> None:
    assert schedule("DDPMScheduler", clip_sample_range=2.0).clip == 2.0
    assert schedule("DDPMScheduler", clip_sample=False).clip is None
    assert schedule("EulerDiscreteScheduler", clip_sample=True).clip is None


def test_null_is_as_good_as_absent() -> None:
    nothing = {"timestep_spacing": None, "prediction_type": None, "beta_start": None}
    assert schedule("EulerDiscreteScheduler", **nothing) == schedule("EulerDiscreteScheduler")


@pytest.mark.parametrize(
    ("class_name", "option"),
    [
        ("DDIMScheduler", {"thresholding": True}),
        ("DDPMScheduler", {"variance_type": "fixed_large"}),
        ("PNDMScheduler", {"skip_prk_steps": False}),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}),
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
        ("EulerDiscreteScheduler", {"sigma_max": 80.0}),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}),
        ("UniPCMultistepScheduler", {"predict_x0": False}),
        ("SASolverScheduler", {"predictor_order": 3}),
    ],
)
def test_options_that_would_change_the_picture(class_name: str, option: dict[str, Any]) -> None:
    """They matter where the file's own sampler is asked for, and only there."""
    (key,) = option
    config = schedule(class_name, **option)
    tables = NoiseSchedule.from_config(config)
    with pytest.raises(UnsupportedCheckpoint, match=rf'_config\.json: "{key}" is .* with -s'):
        SamplingPlan.make(Sampling(), config, tables)
    assert SamplingPlan.make(Sampling(sampler="ddim"), config, tables).sigmas


@pytest.mark.parametrize(
    "option",
    [
        {"timestep_type": "continuous"},
        {"prediction_type": "score"},
        {"beta_schedule": "laplace"},
        {"timestep_spacing": "karras"},
    ],
)
def test_another_kind_of_noise_is_refused_whatever_the_sampler(option: dict[str, Any]) -> None:
    (key,) = option
    with pytest.raises((UnsupportedCheckpoint, ConfigError), match=f'"{key}"'):
        schedule("EulerDiscreteScheduler", **option)


def test_a_class_that_is_not_here_still_tells_the_noise() -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.02}
    config = schedule("DPMSolverSinglestepScheduler", **betas, prediction_type="v_prediction")
    assert (config.beta_start, config.prediction) == (0.001, "v")
    assert "DPMSolverSinglestepScheduler" in str(config.unsupported)


def test_pndm_warms_up_by_runge_kutta_unless_told_not_to() -> None:
    config = read_schedule(JsonObject(Path("scheduler_config.json"), {}), "PNDMScheduler")
    assert '"skip_prk_steps" is false' in str(config.unsupported)


def test_playground_is_sampled_as_edm() -> None:
    config = JsonObject.read(PLAYGROUND)
    found = read_schedule(config, config.get("_class_name", ""))
    assert (found.prediction, found.sampler, found.spacing) == ("edm", "dpmpp_2m", "karras")
    assert (found.sigma_min, found.sigma_max, found.sigma_data) == (0.002, 80.0, 0.5)
    assert found.unsupported is None


def test_edm_of_other_solvers_needs_a_sampler_named() -> None:
    found = schedule("EDMDPMSolverMultistepScheduler", solver_order=3)
    assert '"solver_order" is 3' in str(found.unsupported)
    assert schedule("EDMEulerScheduler", sigma_schedule="exponential").spacing == "exponential"
    with pytest.raises(UnsupportedCheckpoint, match='"sigma_schedule" is "other"'):
        schedule("EDMEulerScheduler", sigma_schedule="other")


def test_euler_of_continuous_v_is_cosxl() -> None:
    found = schedule(
        "EulerDiscreteScheduler",
        timestep_type="continuous",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=120.0,
        use_karras_sigmas=True,
    )
    assert (found.prediction, found.sampler, found.spacing) == ("edm_v", "euler", "karras")
    assert (found.sigma_max, found.sigma_data) == (120.0, 1.0)


def test_flows_say_their_shift() -> None:
    found = schedule("FlowMatchEulerDiscreteScheduler", shift=2.5)
    assert (found.prediction, found.shift) == ("flow", 2.5)
    assert (found.sampler, found.spacing) == ("euler", "linspace")
    assert schedule("FlowMatchHeunDiscreteScheduler").sampler == "heun"
    assert schedule("FlowMatchEulerDiscreteScheduler", use_beta_sigmas=True).spacing == "beta"
    with pytest.raises(UnsupportedCheckpoint, match="invert_sigmas"):
        schedule("FlowMatchEulerDiscreteScheduler", invert_sigmas=True)


@pytest.mark.parametrize(
    ("class_name", "options"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 2.5, "shift_terminal": 0.1}),
        ("FlowMatchLCMScheduler", {"shift": 2.5, "beta_schedule": "linear"}),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "flow_shift": 2.5}),
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "flow_shift": 2.5, "beta_schedule": "linear"},
        ),
    ],
)
def test_flows_of_samplers_that_are_not_here(class_name: str, options: dict[str, Any]) -> None:
    found = schedule(class_name, **options)
    assert (found.prediction, found.shift) == ("flow", 2.5)
    assert found.unsupported


@pytest.mark.parametrize("value", [[], ["epsilon"], {"v": 1}])
def test_a_prediction_of_another_type_is_told(value: object) -> None:
    with pytest.raises(ConfigError, match='"prediction_type" should be a string'):
        schedule("EulerDiscreteScheduler", prediction_type=value)


def test_what_the_user_says_is_not_asked_of_the_file() -> None:
    def read(class_name: str, asked: tuple[str, ...], **options: Any) -> NoiseConfig:
        path = Path("scheduler_config.json")
        given = {"beta_schedule": "linear", "beta_start": 0.001, **options}
        return read_schedule(JsonObject(path, given), class_name, asked)

    odd = {"prediction_type": "score", "timestep_type": "continuous"}
    assert read("EulerDiscreteScheduler", ("prediction",), **odd).beta_start == 0.001
    dynamic = {"use_dynamic_shifting": True}
    with pytest.raises(
        UnsupportedCheckpoint, match=r"use_dynamic_shifting.*set a shift with --shift"
    ):
        read("FlowMatchEulerDiscreteScheduler", (), **dynamic)
    assert read("FlowMatchEulerDiscreteScheduler", ("shift",), **dynamic).prediction == "flow"


@pytest.mark.parametrize(
    "config",
    [
        NoiseConfig(prediction="flow", shift=2.5, sampler="euler", spacing="linspace"),
        NoiseConfig(prediction="flow", shift=1.0, sampler="heun", spacing="karras"),
        NoiseConfig(
            prediction="edm",
            sigma_min=0.002,
            sigma_max=80.0,
            sigma_data=0.5,
            sampler="dpmpp_2m",
            spacing="karras",
        ),
        NoiseConfig(
            prediction="edm_v",
            sigma_min=0.01,
            sigma_max=120.0,
            sigma_data=1.0,
            sampler="euler",
            spacing="exponential",
        ),
    ],
)
def test_other_noise_is_written_as_it_is_read(config: NoiseConfig) -> None:
    name = scheduler_class(config)
    written = JsonObject(Path("scheduler_config.json"), schedule_json(config))
    found = read_schedule(written, name)
    assert (found.shift, found.spacing, found.sampler) == (
        config.shift if config.prediction == "flow" else found.shift,
        config.spacing,
        config.sampler,
    )
    assert (found.prediction, found.sigma_max) == (config.prediction, config.sigma_max)
    assert getattr(diffusers, name).from_config(written.data) is not None


@pytest.mark.parametrize("class_name", ["DPMSolverMultistepScheduler", "SASolverScheduler"])
def test_timesteps_that_a_class_leaves_out_are_told(class_name: str) -> None:
    """Where diffusers' grid begins below the noisiest timestep."""
    cosine = {"beta_schedule": "squaredcos_cap_v2"}
    for options in (cosine, {}):
        for least in (-5.1, -2.0, -math.inf):
            given = {**options, "lambda_min_clipped": least}
            theirs = getattr(diffusers, class_name)(**given, timestep_spacing="trailing")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy, about its arrays
                theirs.set_timesteps(10)
            cut = int(theirs.timesteps[0]) < 999
            told = schedule(class_name, **given).unsupported
            assert (told is not None) == cut
            assert not cut or '"lambda_min_clipped" is' in str(told)
