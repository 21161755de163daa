"""diffgen.engine.request: which requests are refused, and what the rest come to for a model."""

import math
from dataclasses import replace

import pytest

from diffgen.engine.model import Model
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UnsupportedCheckpoint, UsageError
from diffgen.models.config import ClipTextConfig, ModelConfig, UNetConfig, VaeConfig
from diffgen.settings.picture import MAX_SEED
from diffgen.types import NoiseConfig
from diffgen.weights.registry import ModelEntry

SD1 = ModelConfig(
    family="sd1",
    text=(ClipTextConfig(),),
    unet=UNetConfig(),
    vae=VaeConfig(),
    schedule=NoiseConfig(sampler="plms", spacing="leading"),
)
ENTRY = ModelEntry(
    bundled="x",
    description="x",
    license="x",
    steps=12,
    guidance_scale=3.0,
    sampler="euler",
    schedule="karras",
)


def request(**changes: object) -> GenerateRequest:
    return GenerateRequest(**{"prompts": ["a barn"]} | changes)


def plan(config: ModelConfig = SD1, entry: ModelEntry | None = None, **changes: object):
    return GeneratePlan.make(request(**changes), config, entry)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "a barn"}, "list of prompts"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": -3}, "steps must be at least 1, got -3"),
        ({"width": 0}, "width must be at least 1"),
        ({"height": -8}, "height must be at least 1"),
        ({"rho": 0.0}, "rho must be"),
        ({"rho": math.nan}, "rho must be"),
        ({"seed": -1}, "seeds run from 0"),
        ({"seed": MAX_SEED + 1}, "seeds run from 0"),
        ({"seed": MAX_SEED, "count": 2}, "seeds run from 0"),
        ({"guidance_scale": math.nan}, "guidance scale must be a finite number"),
        ({"guidance_scale": math.inf}, "guidance scale must be a finite number"),
        ({"guidance_rescale": -0.1}, "guidance rescale must be"),
        ({"guidance_rescale": 1.1}, "guidance rescale must be"),
        ({"guidance_rescale": math.nan}, "guidance rescale must be"),
        ({"guidance_interval": (2.0, 1.0)}, "LOW < HIGH"),
        ({"guidance_interval": (-1.0, 1.0)}, "LOW < HIGH"),
        ({"guidance_interval": (1.0, math.nan)}, "LOW < HIGH"),
        ({"steps": 3, "sigmas": [3.0, 1.0]}, "give one of steps, sigmas and timesteps"),
        ({"timesteps": [3.0], "sigmas": [3.0, 1.0]}, "give one of steps, sigmas and timesteps"),
        ({"schedule": "karras", "sigmas": [3.0, 1.0]}, "drop the schedule name"),
        ({"schedule": "karras", "timesteps": [3.0, 1.0]}, "drop the schedule name"),
        ({"sigmas": []}, "sigmas must be a descending list"),
        ({"sigmas": [0.0]}, "sigmas must be a descending list"),
        ({"sigmas": [1.0, 1.0]}, "sigmas must be a descending list"),
        ({"sigmas": [1.0, 2.0]}, "sigmas must be a descending list"),
        ({"sigmas": [math.inf, 2.0]}, "sigmas must be a descending list"),
        ({"sigmas": [math.nan]}, "sigmas must be a descending list"),
        ({"sigmas": [1.0, -2.0]}, "sigmas must be a descending list"),
        ({"timesteps": [100.0, -1.0]}, "timesteps must be a descending list"),
        ({"timesteps": [100.0, 500.0]}, "timesteps must be a descending list"),
        ({"eta": -0.1}, "eta must be"),
        ({"eta": math.nan}, "eta must be"),
    ],
)
def test_values_no_model_could_serve(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        request(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": [""]},
        {"seed": MAX_SEED},
        {"seed": 0},
        {"guidance_scale": 0.0},
        {"guidance_scale": -1.0},
        {"guidance_rescale": 1.0},
        {"guidance_interval": (0.0, 0.5)},
        {"sigmas": [3.0, 1.0, 0.0]},
        {"sigmas": [3.0]},
        {"timesteps": [999.0, 0.0]},
        {"eta": 0.0},
    ],
)
def test_values_at_the_edge_are_fine(changes: dict[str, object]) -> None:
    request(**changes)


def test_the_config_decides_where_the_request_is_silent() -> None:
    made = plan()
    assert (made.width, made.height) == (512, 512)
    assert (made.sampling.spec.name, made.sampling.schedule) == ("plms", "leading")
    assert made.sampling.steps_run == 20
    assert made.guidance_scale == 7.5
    assert made.request.guidance_rescale == 0.0
    assert (made.seeds, made.count) == (range(1), 1)


@pytest.mark.parametrize(("family", "scale"), [("sd2", 7.5), ("sdxl", 5.0), ("custom", 5.0)])
def test_guidance_by_family(family: str, scale: float) -> None:
    assert plan(replace(SD1, family=family)).guidance_scale == scale


def test_the_registry_comes_before_the_config() -> None:
    made = plan(entry=ENTRY)
    assert (made.sampling.spec.name, made.sampling.schedule) == ("euler", "karras")
    assert made.sampling.steps_run == 12
    assert made.guidance_scale == 3.0


def test_the_request_comes_before_the_registry() -> None:
    made = plan(
        entry=ENTRY,
        sampler="heun",
        schedule="exponential",
        steps=3,
        guidance_scale=0.0,
        width=64,
        height=128,
    )
    assert (made.sampling.spec.name, made.sampling.schedule) == ("heun", "exponential")
    assert made.sampling.steps_run == 3
    assert (made.guidance_scale, made.width, made.height) == (0.0, 64, 128)


@pytest.mark.parametrize("sampler", ["lcm", "tcd"])
@pytest.mark.parametrize("entry", [None, ENTRY])
def test_distilled_samplers_take_few_steps_and_no_guidance(
    sampler: str, entry: ModelEntry | None
) -> None:
    made = plan(entry=entry, sampler=sampler)
    assert made.sampling.steps_run == 4
    assert made.guidance_scale == 1.0
    assert plan(entry=entry, sampler=sampler, steps=6).sampling.nfe == 6


def test_a_unet_with_guidance_embedding_keeps_the_scale_under_lcm() -> None:
    told = replace(SD1, unet=replace(SD1.unet, guidance_dim=256))
    assert plan(told, sampler="lcm").guidance_scale == 7.5


def test_what_storybook_recommends() -> None:
    made = Model.open("storybook").plan(request())
    assert (made.width, made.height, made.guidance_scale) == (256, 256, 4.0)
    assert (made.sampling.spec.name, made.sampling.schedule) == ("dpmpp_2m", "beta")


@pytest.mark.parametrize(
    ("side", "pixels", "advice"),
    [("width", 100, "take 96 or 104"), ("height", 511, "take 504 or 512"), ("width", 3, "take 8")],
)
def test_sizes_that_do_not_divide(side: str, pixels: int, advice: str) -> None:
    with pytest.raises(UsageError, match=f"^{side} {pixels} does not divide by 8.*{advice}$"):
        plan(**{side: pixels})


def test_options_of_another_sampler_are_refused() -> None:
    with pytest.raises(UsageError, match="sampler lms has no eta"):
        plan(sampler="lms", eta=1.0)


@pytest.mark.parametrize("channels", [{"in_channels": 7}, {"out_channels": 8}])
def test_unets_for_other_tasks_are_refused(channels: dict[str, int]) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="U-Net"):
        plan(replace(SD1, unet=replace(SD1.unet, **channels)))


def test_explicit_levels_are_kept() -> None:
    made = plan(sampler="euler", sigmas=[10.0, 3.0, 1.0])
    assert made.sampling.sigmas == (10.0, 3.0, 1.0, 0.0)
    assert made.sampling.schedule is None


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "lms", "euler"])
def test_timesteps_beyond_the_table_are_refused(sampler: str) -> None:
    """Two of them would be one noise level twice."""
    with pytest.raises(UsageError, match="timesteps"):
        plan(sampler=sampler, timesteps=[2000.0, 1500.0, 300.0])


def test_pictures_come_in_order_and_in_batches() -> None:
    made = plan(prompts=["a", "b"], seed=5, count=3, batch_size=4)
    batches = list(made.batches())
    assert [len(batch) for batch in batches] == [4, 2]
    assert [picture for batch in batches for picture in batch] == [
        Picture(prompt, seed) for prompt in "ab" for seed in (5, 6, 7)
    ]


def test_an_adaptive_sampler_makes_pictures_one_by_one() -> None:
    assert plan(sampler="dpm_adaptive", count=3, batch_size=3).batch_size == 1


def test_summary() -> None:
    assert plan(steps=5, sampler="heun", schedule="karras", count=2).summary() == (
        "2 of 512 x 512, heun on karras, 5 steps, 9 evaluations each, guidance 7.5"
    )
    assert "adaptive evaluations" in plan(sampler="dpm_adaptive").summary()


def test_fast_takes_fewer_steps_on_another_schedule() -> None:
    made = plan(fast=True)
    assert (made.sampling.steps_run, made.sampling.schedule) == (14, "ays")
    made = plan(entry=ENTRY, fast=True)
    assert (made.sampling.spec.name, made.sampling.schedule) == ("euler", "ays")
    assert made.sampling.steps_run == 8


@pytest.mark.parametrize(
    ("changes", "steps", "schedule"),
    [
        ({"steps": 30}, 30, "leading"),
        ({"schedule": "karras"}, 20, "karras"),
        ({"sigmas": [9.0, 3.0, 1.0]}, 3, None),
        ({"timesteps": [999.0, 500.0]}, 2, None),
        ({"sampler": "lcm"}, 4, "lcm"),
    ],
)
def test_fast_leaves_what_was_asked_for(
    changes: dict[str, object], steps: int, schedule: str | None
) -> None:
    made = plan(fast=True, **changes)
    assert (made.sampling.steps_run, made.sampling.schedule) == (steps, schedule)
    assert made.request.fast


def test_seeds_have_64_bits_as_torch_has_them() -> None:
    (batch,) = plan(seed=MAX_SEED).batches()
    assert [picture.seed for picture in batch] == [2**64 - 1]


@pytest.mark.parametrize(("asked", "layer"), [(None, 1), (1, 1), (2, 2)])
def test_the_layer_of_the_text_encoder(asked: int | None, layer: int) -> None:
    assert plan(clip_skip=asked).clip_skip == layer
    assert plan(replace(SD1, clip_skip=3), clip_skip=asked).clip_skip == (asked or 3)
    with pytest.raises(UsageError, match="clip skip 99: this model's text encoder has 12 layers"):
        plan(clip_skip=99)
