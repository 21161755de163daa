"""Check what steers a picture against a model: texts, sizes, guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffgen.diffusion.guidance import Guidance, scales_of_steps
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.errors import UsageError
from diffgen.models.config import ModelConfig
from diffgen.text.foreign_syntax import PARAMETERS, find_foreign
from diffgen.text.grammar import parse
from diffgen.types import PromptStyle, Stretch

if TYPE_CHECKING:
    from diffgen.engine.plan import GeneratePlan
    from diffgen.engine.request import GenerateRequest


def plan_guidance(
    request: GenerateRequest, scale: float, sampling: SamplingPlan, config: ModelConfig
) -> Guidance:
    """The guidance of a run. Raises UsageError if the model or the sampler does not support it."""
    name, pag = request.guidance_method, request.pag
    if config.task == "edit" and (name != "cfg" or pag or request.guidance_schedule):
        raise UsageError("models that edit pictures have a guidance of their own, --image-guidance")
    if config.embeds_guidance and (name != "cfg" or pag or request.guidance_schedule):
        raise UsageError("this model takes a guidance scale as an input; there is nothing to guide")
    if pag and not config.has_mid_attention:
        raise UsageError("--pag: this U-Net has no attention in its mid block")
    scales = scales_of_steps(
        name,
        request.guidance_schedule or [Stretch(scale)],
        sampling.sigmas,
        sampler=sampling.spec.name,
        options=sampling.options,
    )
    return Guidance(
        scales=scales,
        name=name,
        rescale=request.guidance_rescale,
        interval=request.guidance_interval,
        pag=pag,
        apg_momentum=request.apg_momentum,
        apg_norm=request.apg_norm,
        apg_parallel=request.apg_parallel,
    )


def check_texts(request: GenerateRequest, style: PromptStyle, config: ModelConfig) -> None:
    """Raise UsageError for unreadable prompts, and for inputs that the model lacks."""
    if len(config.text) < 2 and (request.prompt_2, request.negative_2) != (None, None):
        raise UsageError("--prompt-2 and --negative-2 need a second text encoder, as SDXL has")
    sizes = (request.original_size, request.crop, request.target_size)
    if config.conditioning != "sizes" and any(each is not None for each in sizes):
        raise UsageError("--original-size, --crop and --target-size need a model like SDXL")
    for text in filter(None, [*request.prompts, request.prompt_2]):
        parse(text, style)
    for text in filter(None, [request.negative, request.negative_2]):
        parse(text, style, negative=True)
    if request.between is not None:
        _check_other(request.between[0], request.prompts, style)


def _check_other(text: str, prompts: Sequence[str], style: PromptStyle) -> None:
    other = parse(text, style)
    if other.loras:
        raise UsageError(
            "a LoRA cannot come in between prompts; name it in the first one or with --lora"
        )
    if any(len(parse(each, style).terms) != len(other.terms) for each in prompts):
        raise UsageError("there is nothing between prompts that have AND in different numbers")


def unread_syntax(
    plan: GeneratePlan, *, embeddings: bool = False, parameters: bool = False
) -> list[str]:
    """Foreign syntax in a plan's texts: each kind and its first occurrence, `choices, "[a|b]"`.

    With `embeddings`, their names are known; with `parameters`, a ` --word` is meant as text.
    """
    request = plan.request
    drawn = [text for text in (*request.prompts, request.prompt_2) if text is not None]
    drawn += [request.between[0]] if request.between else []
    negative = [text for text in (request.negative, request.negative_2) if text is not None]
    found = find_foreign([*drawn, *negative], plan.prompt_style)
    for kind, known in (("embeddings", embeddings), (PARAMETERS, parameters)):
        if known:
            found.pop(kind, None)
    pieces = [f"{kind}, {piece}" for kind, piece in found.items()]
    for text in drawn:
        pieces += plan.understood(text).notes
    for text in negative:
        pieces += plan.understood(text, negative=True).notes
    return list(dict.fromkeys(pieces))
