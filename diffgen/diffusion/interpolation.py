"""Conditioning for a picture between two prompts."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import lerp

from diffgen.diffusion.conditioning import repeated
from diffgen.diffusion.course import Course, Guide
from diffgen.errors import UsageError
from diffgen.types import Conditioning


def between(first: Guide, other: Guide, share: float) -> Guide:
    """Interpolate linearly between two guides, in the text encoders' output.

    The negative is the first one's. Both ends are the guides themselves. Raises UsageError for
    prompts that AND divides into different numbers.
    """
    if share == 0.0:
        return first
    if share == 1.0:
        return replace(other, uncond=first.uncond)
    if len(first.cond) != len(other.cond):
        raise UsageError("there is nothing between prompts that have AND in different numbers")
    pairs = zip(first.cond, other.cond, strict=True)
    return replace(first, cond=tuple(_course(*pair, share) for pair in pairs))


def _course(a: Course, b: Course, share: float) -> Course:
    """A new stage wherever either of two prompts has one."""
    floors = sorted({floor for each in (a, b) for floor, _ in each.stages}, reverse=True)
    stages = [(floor, _mixed(_above(a, floor), _above(b, floor), share)) for floor in floors]
    return Course(tuple(stages), a.weight + share * (b.weight - a.weight))


def _above(course: Course, floor: float) -> Conditioning:
    """The stage just above a floor."""
    last = course.stages[-1][1]
    return next((cond for own, cond in course.stages if own <= floor), last)


def _mixed(a: Conditioning, b: Conditioning, share: float) -> Conditioning:
    """Texts of different lengths are repeated to one length, as in a batch."""
    common = math.lcm(a.context.shape[1], b.context.shape[1])
    context = lerp(repeated(a.context, common), repeated(b.context, common), share)
    if a.pooled is None or b.pooled is None:
        return replace(a, context=context)
    return replace(a, context=context, pooled=lerp(a.pooled, b.pooled, share))
