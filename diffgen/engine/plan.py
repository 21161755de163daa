"""Resolve a request for one model: everything that can be decided before loading."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import TYPE_CHECKING

from diffgen.diffusion.guidance import CFG_PLUS_PLUS, Guidance
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import DEFAULT_STEPS, SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.edits import Edits
from diffgen.engine.request import GenerateRequest
from diffgen.engine.steering import check_texts, plan_guidance
from diffgen.engine.tasks import (
    check_clip_skip,
    check_hires,
    check_size,
    check_task,
    check_timesteps,
    strength_of,
)
from diffgen.models.config import ModelConfig
from diffgen.settings.picture import Number
from diffgen.settings.sampling import Sampling
from diffgen.settings.setting import rows
from diffgen.text.grammar import parse
from diffgen.text.prompt import Prompt
from diffgen.types import PromptStyle, SpacingName
from diffgen.weights.registry import ModelEntry

if TYPE_CHECKING:
    from diffgen.engine.model import Model

# `fast` takes this share of the default steps, on the best spacing for few steps, and computes
# the U-Net's lower levels in the first FAST_FIRST evaluations and every FAST_EVERY-th of the others.
# The PSNR of storybook's pictures to the exact ones is then FAST_PSNR. Ending guidance early cost
# more than it gained (scripts/bench_fast.py).
FAST_STEPS = 0.7
FAST_SCHEDULE: SpacingName = "ays"
FAST_FIRST = 3
FAST_EVERY = 2
FAST_PSNR = 27.3

# Settings that may differ between the pictures of one network call.
OF_PICTURES = {*rows(Number), "negative", "negative_2", "towards", "guidance_scale"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to make."""

    prompt: str
    seed: int
    init: int = 0  # index among the init pictures
    # Set where one of OF_PICTURES differs from the batch's.
    own: GeneratePlan | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratePlan:
    """A request checked against one model, with the model's defaults filled in."""

    request: GenerateRequest
    batch_size: int
    width: int
    height: int
    sampling: SamplingPlan
    guidance_scale: float
    guidance: Guidance
    clip_skip: int
    prompt_style: PromptStyle
    strength: float = 1.0
    edits: Edits | None = None
    second: GeneratePlan | None = None  # at a larger size, from the first one's result
    refined: tuple[Model, GeneratePlan] | None = None  # the model for the last part of the run

    @classmethod
    def make(
        cls,
        request: GenerateRequest,
        config: ModelConfig,
        entry: ModelEntry | None = None,
        *,
        strength: float | None = None,
        stretch: tuple[float, float] = (0.0, 1.0),
    ) -> GeneratePlan:
        """Resolve a request. `entry` holds a registered model's recommended settings.

        `strength` is for a second pass, `stretch` for one model's part of a run. Raises UsageError
        for sizes and steps that do not fit the model, and PictureError for an unreadable picture.
        """
        check_task(request, config)
        check_timesteps(request, config)
        (width, height), edits = _size(request, config)
        strength = strength_of(request, edits, config) if strength is None else strength
        sampling = _plan_sampling(request, config, entry, last=strength, stretch=stretch)
        scale = request.guidance_scale
        if scale is None:
            scale = _default_guidance(request, sampling, config, entry)
        style = request.prompt_style or config.prompt_style
        check_texts(request, style, config)
        return cls(
            request=request,
            # An adaptive solver measures the whole state: a batch would couple its images.
            batch_size=1 if sampling.nfe is None else request.batch_size,
            width=width,
            height=height,
            sampling=sampling,
            guidance_scale=scale,
            guidance=plan_guidance(request, scale, sampling, config),
            prompt_style=style,
            clip_skip=check_clip_skip(request.clip_skip, config),
            strength=strength,
            edits=edits,
            second=_plan_second(request, (width, height), config, entry, edits),
        )

    def of(self, batch: Sequence[Picture]) -> GeneratePlan:
        """The plan of a batch, at the size of its init picture."""
        if self.edits is None:
            return self
        width, height = self.edits[batch[0].init].size
        if (width, height) == (self.width, self.height):
            return self
        second = self.second
        if second is not None:
            large = self.request.enlarged(width, height, self.edits.factor)
            second = replace(second, width=large[0], height=large[1])
        return replace(self, width=width, height=height, second=second)

    def about(self, pictures: Sequence[Picture]) -> GeneratePlan:
        """The plan with the prompts of these pictures."""
        prompts = tuple(dict.fromkeys(picture.prompt for picture in pictures))
        return replace(self, request=replace(self.request, prompts=prompts))

    def understood(self, text: str, *, negative: bool = False) -> Prompt:
        """A prompt parsed in the model's style."""
        return parse(text, self.prompt_style, negative=negative)

    def texts(self, prompt: str) -> tuple[list[Prompt], list[Prompt] | None]:
        """Positive and negative texts: one for all encoders, or one for each."""
        request = self.request
        positive = [prompt, *([] if request.prompt_2 is None else [request.prompt_2])]
        negative = [request.negative, request.negative_2]
        if negative == [None, None]:
            return [self.understood(text) for text in positive], None
        words = [request.negative or "", *([] if request.negative_2 is None else negative[1:])]
        return (
            [self.understood(text) for text in positive],
            [self.understood(text or "", negative=True) for text in words],
        )

    @property
    def seeds(self) -> range:
        """The seeds of each prompt's pictures."""
        return range(self.request.seed, self.request.seed + self.request.count)

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self.request.prompts) * len(self.seeds) * len(self.edits or "1")

    @property
    def group(self) -> Hashable:
        """A key, equal for plans whose pictures may share network calls."""
        asked = [
            getattr(self.request, name) for name in rows(GenerateRequest) if name not in OF_PICTURES
        ]
        guidance = [each.guidance.shared for each in self.passes]
        settled = self.width, self.height, self.clip_skip, guidance, self.strength
        return repr((asked, settled, self.sampling.spec.name, self.sampling.sigmas))

    @property
    def passes(self) -> tuple[GeneratePlan, ...]:
        """This plan and the passes that continue from its result."""
        others = (self.second, self.refined and self.refined[1])
        return (self, *(each for each in others if each))

    @property
    def steps(self) -> int:
        """Steps of a picture in all passes."""
        return sum(each.sampling.spec.steps(each.sampling.sigmas) for each in self.passes)

    @property
    def evaluations(self) -> int | None:
        """Network evaluations of a picture in all passes; None for an adaptive sampler."""
        counts = [each.sampling.nfe for each in self.passes]
        return None if None in counts else sum(count or 0 for count in counts)

    def summary(self) -> str:
        """The resolved settings in one line."""
        sampling = self.sampling
        run, steps = sampling.steps_run, sampling.steps_asked
        evaluations = "adaptive" if sampling.nfe is None else str(sampling.nfe)
        return (
            f"{self.count} of {self.width} x {self.height}, {sampling.spec.name} on "
            f"{sampling.schedule or 'an explicit list'}, "
            f"{f'the last {run} of ' if run < steps else ''}{steps} steps, "
            f"{evaluations} evaluations each, guidance {self.guidance_scale:g}"
            f"{', fast' if self.request.fast else ''}"
            f"{''.join(f'; then {each.summary()}' for each in self.passes[1:])}"
        )

    def batches(self) -> Iterator[tuple[Picture, ...]]:
        """The pictures in order, in groups drawn together, each with one init picture."""
        for init in range(len(self.edits or "1")):
            pictures = (Picture(*each, init) for each in product(self.request.prompts, self.seeds))
            while batch := tuple(islice(pictures, self.batch_size)):
                yield batch


def _size(request: GenerateRequest, config: ModelConfig) -> tuple[tuple[int, int], Edits | None]:
    """The width and height to draw, and the init pictures, which may decide them."""
    sides = [
        None if given is None and request.init is not None else check_size(name, given, config)
        for name, given in (("width", request.width), ("height", request.height))
    ]
    edits = None if request.init is None else Edits(request, (sides[0], sides[1]), config)
    return (edits[0].size if edits else (sides[0] or 0, sides[1] or 0)), edits


def _plan_second(
    request: GenerateRequest,
    size: tuple[int, int],
    config: ModelConfig,
    entry: ModelEntry | None,
    edits: Edits | None,
) -> GeneratePlan | None:
    """The second pass: the plan of a request with the first one's picture as init."""
    if request.hires is None:
        return None
    check_hires(request, edits, config)
    width, height = request.enlarged(*size, config.factor)
    for name, pixels in (("hires width", width), ("hires height", height)):
        check_size(name, pixels, config)
    first = replace(request, hires=None, hires_steps=None, init=None, strength=None)
    again = replace(first, width=width, height=height, steps=request.hires_steps or request.steps)
    return GeneratePlan.make(again, config, entry, strength=request.hires_strength)


def _plan_sampling(
    request: GenerateRequest,
    config: ModelConfig,
    entry: ModelEntry | None,
    *,
    last: float,
    stretch: tuple[float, float],
) -> SamplingPlan:
    schedule = config.schedule
    # A recommendation holds only as a whole: not its schedule and steps with another sampler.
    recommended = entry if request.sampler is None else None
    named = request.sampler or (recommended.sampler if recommended else None)
    if recommended and recommended.schedule:
        schedule = replace(schedule, spacing=recommended.schedule)
    spec = SAMPLERS[named or schedule.sampler]
    steps = request.steps or (recommended.steps if recommended else None) or config.steps
    spacing = request.schedule
    distilled = spec.distilled or config.steps is not None
    if request.fast and not (request.steps or spacing or distilled) and schedule.on_betas:
        steps = max(1, round(FAST_STEPS * (steps or DEFAULT_STEPS)))
        spacing = None if request.sigmas or request.timesteps else FAST_SCHEDULE
    settings = replace(
        request.part(Sampling),
        sampler=named,
        steps=steps,
        schedule=spacing,
        last=last,
        stretch=stretch,
    )
    tables = NoiseSchedule.from_config(schedule)
    return SamplingPlan.make(settings, schedule, tables, ays=config.ays)


def _default_guidance(
    request: GenerateRequest,
    sampling: SamplingPlan,
    config: ModelConfig,
    entry: ModelEntry | None,
) -> float:
    if request.guidance_schedule:
        return max(stretch.scale for stretch in request.guidance_schedule)
    if request.guidance_method == "cfg++":
        return CFG_PLUS_PLUS
    if sampling.spec.distilled and not config.embeds_guidance:
        return 1.0
    recommended = entry.guidance_scale if entry else None
    return config.guidance_scale if recommended is None else recommended
