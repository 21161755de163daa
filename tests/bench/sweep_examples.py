"""What tests of the bench share: made-up cells, and a subject whose solution is known exactly."""

import math
from dataclasses import replace

import torch

from diffgen.bench.results import SCHEMA, Cell, Machine, Reference, Results, Timing
from diffgen.bench.subject import Subject
from diffgen.bench.uncertainty import statistic
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.images import to_images
from diffgen.engine.plan import Picture
from diffgen.types import NoiseConfig

MACHINE = Machine(device="cpu (x)", dtype="fp32", threads=1, platform="test", versions={})
REFERENCE = Reference(
    sampler="dpmpp_3m",
    schedule="exponential",
    steps=200,
    nfe=200,
    checked_with="heun",
    floor_latent_rmse=0.001,
    floor_psnr=60.0,
    floor_ssim=0.999,
    picture="cells/reference.png",
)


def timing(seconds, scatter=0.01):
    """Three repeats around a median."""
    repeats = (seconds * (1 - scatter), seconds, seconds * (1 + scatter))
    return Timing(seconds, repeats[0], repeats[2], repeats)


def cell(sampler="ddim", steps=10, *, psnr=30.0, seconds=1.0, ssim=None, **changes):
    """A measured cell; the rest of its figures does not matter."""
    fields = {
        "sampler": sampler,
        "schedule": "karras",
        "steps": steps,
        "nfe": steps,
        "stochastic": False,
        "status": "ok",
        "psnr": None if psnr is None else statistic([psnr - 1.0, psnr + 1.0]),
        "ssim": None if ssim is None else statistic([ssim]),
        "seconds": None if seconds is None else timing(seconds),
    }
    return Cell(**fields | changes)


def results(cells, **changes):
    """A sweep with these cells."""
    settings = {
        "prompts": ["a"],
        "negative": None,
        "seeds": [0],
        "guidance": 4.0,
        "width": 64,
        "height": 64,
    }
    made = Results(
        schema=SCHEMA,
        created="2026-01-01T00:00:00+00:00",
        model="storybook",
        settings=settings,
        machine=MACHINE,
        text_seconds=0.1,
        references={"": REFERENCE},
        cells=tuple(cells),
    )
    return replace(made, **changes)


class Mixture:
    """Every number of a picture drawn from the same mixture of two Gaussians.

    In one dimension the probability-flow ODE keeps each state at its quantile, so where it leads
    is known: x(sigma) = F_sigma^-1(F_sigma_max(x(sigma_max))) with F the distribution function of
    the mixture blurred by sigma.
    """

    MEANS, SPREAD = (-0.6, 0.4), 0.2

    def __init__(self, first=0.4):
        """`first` is the share of the first Gaussian."""
        self.weights = (first, 1.0 - first)

    def __call__(self, x, sigma):
        """The posterior mean of x0."""
        x = x.double()
        variance = self.SPREAD**2 + sigma**2
        shares = torch.stack(
            [
                weight * torch.exp(-((x - mean) ** 2 - x**2) / (2 * variance))
                for weight, mean in zip(self.weights, self.MEANS, strict=True)
            ]
        )
        shares = shares / shares.sum(0)
        kept = self.SPREAD**2 / variance
        means = torch.stack([mean + kept * (x - mean) for mean in self.MEANS])
        return (shares * means).sum(0).float()

    def distribution(self, x, sigma):
        width = math.hypot(self.SPREAD, sigma)
        return sum(
            weight * torch.special.ndtr((x - mean) / width)
            for weight, mean in zip(self.weights, self.MEANS, strict=True)
        )

    def solution(self, x, sigma_max, sigma_min):
        """Where the ODE leads from x at sigma_max, with the last step to 0."""
        share = self.distribution(x.double(), sigma_max)
        low, high = torch.full_like(share, -9.0), torch.full_like(share, 9.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.distribution(middle, sigma_min) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return self(low, sigma_min)


def mixture_subject(seeds=(0, 1), first=0.4):
    """A subject of 3 x 16 x 16 numbers, which are pixels at the same time."""
    config = NoiseConfig()
    return Subject(
        pictures=tuple(Picture("a mixture", seed) for seed in seeds),
        config=config,
        schedule=NoiseSchedule.from_config(config),
        shape=(3, 16, 16),
        device=torch.device("cpu"),
        denoiser=lambda indices: Mixture(first),
        decode=to_images,
    )


class Everywhere:
    """One subject, whatever the point."""

    def __init__(self, subject):
        self._subject = subject

    def cell(self, point):
        return self._subject

    def reference(self, solution):
        return self._subject


class Quiet:
    """A listener that counts."""

    def __init__(self):
        self.labels, self.calls = [], 0

    def begin(self, label):
        self.labels.append(label)

    def called(self):
        self.calls += 1
