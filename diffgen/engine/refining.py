"""A second model for the end of a run (SDXL's refiner, arXiv:2307.01952, section 2.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from diffgen.engine.plan import GeneratePlan
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.models.config import ModelConfig

if TYPE_CHECKING:
    from diffgen.engine.model import Model


def plan_refined(request: GenerateRequest, model: Model, refiner: Model) -> GeneratePlan:
    """The plan of a run that one model begins and another ends.

    Both use the first one's sampler and spacing, and each the steps that begin in its part of the
    timesteps. Raises UsageError for models with different latents and for masks.
    """
    config, other = model.checkpoint.config, refiner.checkpoint.config
    _check(request, config, other, refiner.name)
    switch = request.refiner_start
    plan = GeneratePlan.make(request, config, model.entry, stretch=(0.0, switch))
    if plan.edits and plan.edits[0].mask is not None:
        raise UsageError("--refiner draws whole pictures; it does not go with masks")
    sampling = plan.sampling
    listed = bool(request.sigmas or request.timesteps)
    again = replace(
        request,
        refiner=None,
        init=None,
        strength=None,
        width=plan.width,
        height=plan.height,
        sampler=sampling.spec.name,
        schedule=sampling.schedule,
        steps=None if listed else sampling.steps_asked,
    )
    second = GeneratePlan.make(
        again, other, refiner.entry, strength=plan.strength, stretch=(switch, 1.0)
    )
    return replace(plan, refined=(refiner, second))


def _check(request: GenerateRequest, config: ModelConfig, other: ModelConfig, name: str) -> None:
    if (config.latent_channels, config.factor) != (other.latent_channels, other.factor):
        raise UsageError(
            f"--refiner {name} works on other latents than the model; take one of its family"
        )
    if config.task != "text" or other.task != "text" or request.hires is not None:
        raise UsageError("--refiner goes with models for text alone, and not with --hires")
