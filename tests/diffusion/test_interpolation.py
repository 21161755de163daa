"""Between two guides: linear, each end itself, stages of both."""

import pytest
import torch

from diffgen.diffusion.course import Course, Guide
from diffgen.diffusion.interpolation import between
from diffgen.errors import UsageError
from diffgen.types import Conditioning


def cond(seed: int, tokens: int = 3) -> Conditioning:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, 4, generator=generator)
    return Conditioning(context, pooled=torch.randn(1, 5, generator=generator))


def guide(*conds: Conditioning) -> Guide:
    return Guide(tuple(map(Course.constant, conds)), Course.constant(cond(9)))


def test_a_part_of_the_way_is_linear_in_every_text():
    first, other = guide(cond(1)), guide(cond(2))
    found = between(first, other, 0.25)
    (course,) = found.cond
    mixed = course.stages[0][1]
    for name in ("context", "pooled"):
        a, b = getattr(cond(1), name).double(), getattr(cond(2), name).double()
        assert torch.allclose(getattr(mixed, name).double(), 0.75 * a + 0.25 * b, atol=1e-6)
    assert found.uncond is first.uncond


def test_the_ends_are_the_guides_themselves():
    first, other = guide(cond(1)), guide(cond(2, tokens=6))
    assert between(first, other, 0.0) is first
    assert between(first, other, 1.0).cond is other.cond
    assert between(first, other, 1.0).uncond is first.uncond


def test_a_shorter_text_is_repeated():
    (course,) = between(guide(cond(1)), guide(cond(2, tokens=6)), 0.5).cond
    twice = torch.cat([cond(1).context] * 2, dim=1)
    assert torch.allclose(
        course.stages[0][1].context, (twice + cond(2, tokens=6).context) / 2, atol=1e-6
    )


def test_every_stage_of_either_prompt_counts_where_it_did():
    a = Course(((5.0, cond(1)), (-1.0, cond(2))))
    b = Course(((8.0, cond(3)), (2.0, cond(4)), (-1.0, cond(5))))
    uncond = Course.constant(cond(9))
    (course,) = between(Guide((a,), uncond), Guide((b,), uncond), 0.5).cond
    for sigma, one, two in ((9.0, 1, 3), (6.0, 1, 4), (5.0, 2, 4), (3.0, 2, 4), (1.0, 2, 5)):
        found = course.stages[course.stage(sigma)][1].context
        assert torch.allclose(found, (cond(one).context + cond(two).context) / 2, atol=1e-6)


def test_prompts_joined_by_and_go_in_pairs_or_not_at_all():
    found = between(guide(cond(1), cond(2)), guide(cond(3), cond(4)), 0.5)
    assert len(found.cond) == 2
    with pytest.raises(UsageError, match="AND in different numbers"):
        between(guide(cond(1)), guide(cond(3), cond(4)), 0.5)
