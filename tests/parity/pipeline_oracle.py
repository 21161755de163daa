"""The oracle end to end: diffusers' pipelines, with each scheduler that has a sampler here."""

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import STORYBOOK
from torch import Tensor

from diffgen import Engine, GenerateRequest
from diffgen.diffusion.schedule import NoiseSchedule

Pipeline = diffusers.StableDiffusionPipeline | diffusers.StableDiffusionXLPipeline

PROMPT = "a red barn at sunset"
NEGATIVE = "blue, night"
SEED = 11
GUIDANCE = 7.0

numpy_2_warns = pytest.mark.filterwarnings(
    "ignore:__array_:DeprecationWarning"  # how diffusers hands tensors to numpy
)


class Pair(NamedTuple):
    """One model twice: in diffusers' pipeline, and in the engine."""

    pipeline: Pipeline
    engine: Engine


class _Stride(int):
    """A number of steps whose quotient `timesteps // steps` is the stride it was made with."""

    def __rfloordiv__(self, other: int) -> int:
        return int(self)


class ListedDDIM(diffusers.DDIMScheduler):
    """DDIM that steps to the next timestep of its list.

    The original steps by T // steps, which is another place where the spacing is uneven.
    """

    # The pipelines read the parameters' names to know what to pass.
    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: object = None,
        **options: object,
    ):
        self.num_inference_steps = _Stride(_stride(self.timesteps.tolist(), int(timestep)))
        options |= {"eta": eta, "generator": generator}
        return super().step(model_output, timestep, sample, **options)


class ListedPNDM(diffusers.PNDMScheduler):
    """PLMS that steps to the next timestep of its list; its first step comes in two halves."""

    def step(self, model_output: Tensor, timestep: Tensor, *args: object, **options: object):
        steps = list(dict.fromkeys(self.timesteps.tolist()))
        second_half = self.counter == 1 and len(steps) > 1
        start = steps[0] if second_half else int(timestep)
        self.num_inference_steps = _Stride(_stride(steps, start))
        return super().step(model_output, timestep, *args, **options)


class InDouble:
    """A scheduler that keeps the state in double precision, as mixin.

    Zero terminal SNR starts at sigma = 4096, and a step from there through a midpoint near 80 is
    a difference of large numbers.
    """

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return super().scale_model_input(sample, timestep).float()

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, **options: object
    ) -> tuple[Tensor]:
        options["return_dict"] = False
        stepped = super().step(model_output, timestep, sample.double(), **options)[0]
        return (stepped.float() if self.step_index == len(self.timesteps) else stepped,)


class DoubleKDPM2(InDouble, diffusers.KDPM2DiscreteScheduler):
    pass


class DoubleKDPM2Ancestral(InDouble, diffusers.KDPM2AncestralDiscreteScheduler):
    """And whose first sigma_down is not a difference of squares in float32, 10 % off from 4096.

    sigma_down^2 = next^2 - sigma_up^2 with sigma_up^2 = next^2 (sigma^2 - next^2) / sigma^2, which
    is next^4 / sigma^2; the midpoint between sigma and sigma_down moves with it.
    """

    def set_timesteps(self, *arguments: object, **options: object) -> None:
        super().set_timesteps(*arguments, **options)
        if len(self.timesteps) == 1:
            return
        sigma, following = self.sigmas[:2].double().tolist()
        down = following**2 / sigma
        middle = math.sqrt(sigma * down)
        self.sigmas_down[0], self.sigmas_interpol[0] = down, middle
        self.timesteps[1] = float(self._sigma_to_t(np.array(middle), self.log_sigmas.numpy()))

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        generator: object = None,
        **options: object,
    ):
        return super().step(model_output, timestep, sample, generator=generator, **options)


def _stride(timesteps: Sequence[int], timestep: int) -> int:
    """The way from a timestep to the next in the list, or below 0 from the last."""
    following = [*timesteps[1:], -1]
    return timestep - following[timesteps.index(timestep)]


@dataclass(frozen=True)
class Scheduler:
    """A diffusers scheduler set up as the sampler of the same name here.

    `zero_snr` says whether it knows zero terminal SNR; `call` goes to the pipeline's call.
    """

    kind: type[diffusers.SchedulerMixin]
    options: Mapping[str, object] = field(default_factory=dict)
    zero_snr: bool = True
    call: Mapping[str, object] = field(default_factory=dict)

    def make(self, config: Mapping[str, object], table: NoiseSchedule | None = None):
        """The scheduler for a checkpoint's config; `table` replaces its cumulative alphas."""
        taken = inspect.signature(self.kind.__init__).parameters
        shared = {key: config[key] for key in TRAINED_WITH if key in config and key in taken}
        scheduler = self.kind(**shared, **self.options)
        if table is not None:
            scheduler.alphas_cumprod = torch.tensor(table.alphas_cumprod, dtype=torch.float32)
        return scheduler


TRAINED_WITH = (
    "beta_start",
    "beta_end",
    "beta_schedule",
    "prediction_type",
    "steps_offset",
    "timestep_spacing",
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
)
NO_CLIP = {"clip_sample": False}
DPMPP_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2}

SCHEDULERS = {
    "ddpm": Scheduler(diffusers.DDPMScheduler, NO_CLIP),
    "ddim": Scheduler(ListedDDIM, NO_CLIP),
    "plms": Scheduler(ListedPNDM, {"skip_prk_steps": True}, zero_snr=False),
    "euler": Scheduler(diffusers.EulerDiscreteScheduler),
    "euler_a": Scheduler(diffusers.EulerAncestralDiscreteScheduler),
    "heun": Scheduler(diffusers.HeunDiscreteScheduler, zero_snr=False),
    "dpm2": Scheduler(DoubleKDPM2, zero_snr=False),
    "dpm2_a": Scheduler(DoubleKDPM2Ancestral, zero_snr=False),
    "lms": Scheduler(diffusers.LMSDiscreteScheduler, zero_snr=False),
    "dpmpp_2m": Scheduler(diffusers.DPMSolverMultistepScheduler, DPMPP_2M),
    "dpmpp_2m_sde": Scheduler(
        diffusers.DPMSolverMultistepScheduler, DPMPP_2M | {"algorithm_type": "sde-dpmsolver++"}
    ),
    "deis": Scheduler(diffusers.DEISMultistepScheduler, zero_snr=False),
    "unipc": Scheduler(diffusers.UniPCMultistepScheduler),
    # bh1 has no oracle here: where sigma ends at 0, diffusers' gives infinity times zero.
    "lcm": Scheduler(diffusers.LCMScheduler, NO_CLIP),
    # Left alone, the pipelines call every scheduler with an eta of 0.
    "tcd": Scheduler(diffusers.TCDScheduler, NO_CLIP, call={"eta": 0.3}),
    "sa_solver": Scheduler(diffusers.SASolverScheduler, zero_snr=False),
}


def load_storybook(dtype: torch.dtype) -> diffusers.StableDiffusionPipeline:
    """The model that ships, in diffusers' pipeline."""
    with warnings.catch_warnings():
        # It wants a steps_offset of 1, which trailing spacing does not read.
        warnings.filterwarnings("ignore", "The configuration file of this scheduler", FutureWarning)
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(STORYBOOK).to(dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _scheduled(pipeline: Pipeline, scheduler: diffusers.SchedulerMixin | None) -> Iterator[None]:
    previous = pipeline.scheduler
    pipeline.scheduler = scheduler or previous
    try:
        yield
    finally:
        pipeline.scheduler = previous


def diffusers_pictures(
    pipeline: Pipeline,
    *,
    scheduler: diffusers.SchedulerMixin | None = None,
    seeds: Sequence[int] = (SEED,),
    **call: object,
) -> list[np.ndarray]:
    """8-bit pictures by the pipeline as it is used: prompt in, pixels out."""
    settings = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_scale": GUIDANCE, **call}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with _scheduled(pipeline, scheduler):
        output = pipeline(
            **settings,
            num_images_per_prompt=len(seeds),
            generator=generators,
            output_type="pil",
        )
    return [np.asarray(image) for image in output.images]


def our_pictures(engine: Engine, **changes: object) -> list[np.ndarray]:
    """8-bit pictures by the engine, with the oracle's settings."""
    settings = {
        "prompts": [PROMPT],
        "negative": NEGATIVE,
        "seed": SEED,
        "guidance_scale": GUIDANCE,
    }
    request = GenerateRequest(**settings | changes)
    return [np.asarray(picture.image) for picture in engine.generate(request)]


def psnr(actual: np.ndarray | Image.Image, expected: np.ndarray | Image.Image) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in dB; infinite where they are the same."""
    difference = np.asarray(actual, dtype=float) - np.asarray(expected, dtype=float)
    error = float((difference**2).mean())
    return math.inf if error == 0.0 else 10.0 * math.log10(255.0**2 / error)
