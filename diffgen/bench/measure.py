"""The measurement of one cell: a picture drawn as `generate` draws it, timed and compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from diffgen.bench.grid import PlannedCell
from diffgen.bench.metrics import latent_rmse, psnr, ssim
from diffgen.bench.reference import Converged
from diffgen.bench.runs import Run, has_limit
from diffgen.bench.subject import Subject
from diffgen.device import peak_memory, reset_peak_memory, synchronize
from diffgen.diffusion.noise import BrownianNoise
from diffgen.errors import DeviceLost, DiffgenError
from diffgen.types import Denoiser

# Errors that fail one cell, not the sweep.
FAILURES = (DiffgenError, RuntimeError, ArithmeticError, ValueError)
Scorer = Callable[[Image.Image, str], float]


class Listener(Protocol):
    """Receives the progress of a sweep."""

    def begin(self, label: str) -> None: ...

    def called(self) -> None: ...


class CountingDenoiser:
    """A denoiser that counts its calls, which are network evaluations."""

    def __init__(self, denoise: Denoiser, listener: Listener) -> None:
        self.calls = 0
        self._denoise, self._listener = denoise, listener

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        self._listener.called()
        return self._denoise(x, sigma)


class Silent:
    """A listener that does nothing."""

    def begin(self, label: str) -> None:
        pass

    def called(self) -> None:
        pass


SILENT = Silent()


def sample(subject: Subject, cell: PlannedCell, run: Run, listener: Listener) -> tuple[Run, Tensor]:
    """Draw one picture of a cell exactly as `generate` does, timed; latents are (1, C, h, w).

    A sampler with independent noise runs once more along its Brownian path, untimed, since that
    noise takes longer to draw. Raises one of FAILURES.
    """
    plan, device = cell.plan, subject.device
    index = run.round % len(subject.pictures)
    seeds = subject.seeds([index])
    denoise = CountingDenoiser(subject.denoiser([index]), listener)
    reset_peak_memory(device)
    start = _now(device)
    latents = plan.run(denoise, seeds, subject.shape, device)
    seconds = _now(device) - start
    run = replace(run, nfe=denoise.calls, seconds=seconds, peak_memory=peak_memory(device))
    if run.round < len(subject.pictures) and needs_path(cell):
        path = BrownianNoise(seeds, subject.shape, device)
        # A denoiser is for one run: some have a state.
        again = CountingDenoiser(subject.denoiser([index]), listener)
        latents = plan.run(again, seeds, subject.shape, device, noise=path)
    if not bool(torch.isfinite(latents).all()):
        raise DiffgenError("sampling gave numbers that are not finite")
    return run, latents


def evaluate(
    subject: Subject,
    run: Run,
    latents: Tensor,
    converged: Converged | None,
    scorer: Scorer | None,
) -> tuple[Run, Image.Image]:
    """Decode (1, C, h, w), compare with the reference, score. Raises one of FAILURES."""
    start = _now(subject.device)
    image = subject.decode(latents)[0]
    run = replace(run, decode_seconds=_now(subject.device) - start)
    if converged:
        truth = converged.images[run.round]
        run = replace(
            run,
            latent_rmse=latent_rmse(latents[0].cpu(), converged.latents[run.round]),
            psnr=psnr(image, truth),
            ssim=ssim(image, truth),
        )
    if scorer:
        run = replace(run, clip=scorer(image, subject.pictures[run.round].prompt))
    return run, image


def needs_path(cell: PlannedCell) -> bool:
    """Whether `generate` draws independent noise while the distance needs a Brownian path."""
    spec = cell.plan.spec
    return cell.stochastic and spec.noise != "brownian" and has_limit(spec)


def reason_of(error: Exception) -> str:
    """The reason of a failed cell, in one line. Raises DeviceLost, which fails all cells."""
    if isinstance(error, DeviceLost):
        raise error
    text = " ".join(str(error).split())
    return text if isinstance(error, DiffgenError) else f"{type(error).__name__}: {text}"


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()
