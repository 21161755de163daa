"""A picture is a function of model, settings and seed: not of what is made beside it."""

from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image, ImageChops

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.engine.drawing import GeneratedImage
from diffgen.engine.engine import Engine
from diffgen.engine.plan import GeneratePlan, Picture
from diffgen.engine.request import GenerateRequest

# Sums of a batch are taken in another order than those of one picture: measured at 1 on this model
# with every sampler, in float32.
LEVELS = 2


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(device="cpu", dtype="fp32")


def apart(one: Image.Image, other: Image.Image) -> int:
    histogram = ImageChops.difference(one, other).histogram()
    return max(i % 256 for i, number in enumerate(histogram) if number)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_neighbours_change_no_picture(engine: Engine, sampler: Any) -> None:
    plan = engine.plan(GenerateRequest(prompts=[""], sampler=sampler, steps=3, width=64, height=64))
    mine = Picture("a red barn", 7)
    neighbours = [Picture("a blue cat", 8), mine, Picture("", 7)]
    (alone,) = engine.draw(plan, [mine])
    if plan.sampling.nfe is None:
        return  # an adaptive solver looks at the whole state, and makes one at a time
    beside = engine.draw(plan, neighbours)[1]
    assert apart(alone.image, beside.image) <= LEVELS
    assert beside.record["seed"] == 7
    assert beside.record["prompt"] == "a red barn"
    (again,) = engine.draw(plan, [mine])
    assert apart(alone.image, again.image) == 0  # alone, to the bit: what --exact does


def test_a_picture_of_many_is_the_one_of_its_seed(engine: Engine) -> None:
    sizes: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, "sampler": "euler_a"}
    many = list(engine.generate(GenerateRequest(prompts=["a", "b"], seed=3, count=2, **sizes)))
    (one,) = engine.generate(GenerateRequest(prompts=["b"], seed=4, **sizes))
    assert apart(many[-1].image, one.image) == 0


def batch_of(engine: Engine, plans: Sequence[GeneratePlan]) -> list[GeneratedImage]:
    pictures = [Picture("a red barn", 7 + i, own=plan) for i, plan in enumerate(plans)]
    return engine.draw(plans[0], pictures)


@pytest.mark.parametrize(
    ("more", "levels"),
    [
        ({}, 0),
        ({"guidance_rescale": 0.5}, 0),
        ({"fast": True}, 0),
        ({"guidance_interval": (0.3, 6.0)}, 0),
        ({"hires": "2x", "hires_strength": 0.5, "width": 32, "height": 32}, 0),
        ({"prompt_style": "a1111"}, LEVELS),  # texts are brought to the longest one's length
    ],
)
def test_a_picture_of_a_mixed_batch_is_the_one_of_its_own_batch(
    engine: Engine, more: dict[str, Any], levels: int
) -> None:
    """To the bit: guidance is computed picture by picture, whatever the others ask for."""
    common = {
        "prompts": [""],
        "steps": 3,
        "width": 64,
        "height": 64,
        "prompt_style": "plain",
    } | more
    asked: list[dict[str, Any]] = [
        {"guidance_scale": 2.0},
        {"guidance_scale": 7.0, "negative": "a (blue:1.2) cat, " * 20},
        {"guidance_scale": 7.0, "negative": "a tree", "towards": "a blue boat:0.25"},
    ]
    plans = [engine.plan(GenerateRequest(**common, **each)) for each in asked]
    assert len({plan.group for plan in plans}) == 1
    mixed = batch_of(engine, plans)
    for i, plan in enumerate(plans):
        own = batch_of(engine, [plan] * 3)[i]
        assert apart(mixed[i].image, own.image) <= levels
        known = {**mixed[i].record, "timings": None}
        assert known == {**own.record, "timings": None}
        assert known["negative"] == asked[i].get("negative")
    other = engine.draw(plans[0], [Picture("a red barn", 7 + i) for i in range(3)])
    assert apart(mixed[1].image, other[1].image) > 4 * LEVELS
