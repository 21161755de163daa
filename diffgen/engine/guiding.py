"""From a plan to the text encoders' input, and to the denoiser that a sampler evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from diffgen.diffusion.course import Guide
from diffgen.diffusion.denoiser import ModelDenoiser
from diffgen.diffusion.guided import GuidedDenoiser
from diffgen.diffusion.image_guidance import ImageGuidedDenoiser
from diffgen.diffusion.interpolation import between
from diffgen.engine.plan import GeneratePlan
from diffgen.models.config import ModelConfig
from diffgen.text.conditioner import Conditioner, Sizes, TextSettings
from diffgen.types import Conditioning, Denoiser


def guides_of(
    plan: GeneratePlan,
    prompts: Sequence[str],
    conditioner: Conditioner,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Guide]:
    """Guides for a U-Net of a dtype over the run of a plan, one a picture."""

    def sent(cond: Conditioning) -> Conditioning:
        # Sizes in pixels have more digits than bf16 keeps.
        return cond.map(lambda x: x.to(device, x.dtype if x is cond.time_ids else dtype))

    settings = _text_settings(plan)
    made = {
        prompt: _guide_of(plan, prompt, conditioner, settings).map(sent)
        for prompt in dict.fromkeys(prompts)
    }
    return [made[prompt] for prompt in prompts]


def _text_settings(plan: GeneratePlan) -> TextSettings:
    """What the encoders need of a plan besides its texts."""
    request, size = plan.request, (plan.width, plan.height)
    sizes = Sizes(
        original=request.original_size or size,
        target=request.target_size or size,
        crop=request.crop or (0, 0),
    )
    return TextSettings(sigmas=plan.sampling.sigmas, sizes=sizes, layer=plan.clip_skip)


def _guide_of(
    plan: GeneratePlan, prompt: str, conditioner: Conditioner, settings: TextSettings
) -> Guide:
    """The guide of a prompt, or of a step between two prompts."""
    guide = conditioner.guide(*plan.texts(prompt), settings)
    if plan.request.between is None:
        return guide
    text, share = plan.request.between
    return between(guide, conditioner.guide(*plan.texts(text), settings), share)


def steered(
    model: ModelDenoiser, plan: GeneratePlan, guides: Sequence[Guide], config: ModelConfig
) -> Denoiser:
    """The model with the guidance of a plan, one guide a picture."""
    if config.task == "edit":
        return ImageGuidedDenoiser(
            model,
            guides,
            guidance_scale=plan.guidance_scale,
            image_guidance=plan.request.image_guidance,
        )
    if config.embeds_guidance:
        # A U-Net with distilled guidance takes the scale as an input, without a second evaluation.
        guides = [_embedded(guide, plan.guidance_scale) for guide in guides]
    return GuidedDenoiser(model, guides, plan.guidance)


def _embedded(guide: Guide, common: float) -> Guide:
    scale = common if guide.scale is None else guide.scale
    told = guide.map(
        lambda cond: replace(cond, guidance=torch.tensor([scale], device=cond.context.device))
    )
    return replace(told, uncond=None)
