"""The denoised estimate at every step of a run, as pictures."""

from __future__ import annotations

import torch
from PIL import Image

from diffgen.bench.subject import Subject
from diffgen.device import memory_errors
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.types import StepInfo


def denoised_frames(subject: Subject, plan: SamplingPlan) -> tuple[list[Image.Image], list[float]]:
    """Sample the first picture; one frame a step, and the noise level the step began at."""
    frames: list[Image.Image] = []
    sigmas = [plan.sigmas[0]]

    def keep(info: StepInfo) -> None:
        frames.extend(subject.decode(info.denoised))
        sigmas.append(info.sigma)

    with torch.inference_mode(), memory_errors():
        seeds = subject.seeds([0])
        plan.run(subject.denoiser([0]), seeds, subject.shape, subject.device, on_step=keep)
    return frames, sigmas[:-1]
