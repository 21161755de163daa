"""Sources of noise: one generator per image, the CPU's or another program's.

A picture depends on its own seed only, not on its neighbours in the batch, the batch size or the
device. Stochastic samplers draw noise during the run from one of two sources: independent draws
from the image's generator (in diffusers' order), or increments of one Brownian path per image,
which stay consistent when the number of steps changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

from diffgen.device import send
from diffgen.diffusion.philox import PhiloxDraws
from diffgen.types import NoiseSource, RngName


def generator_for(seed: int) -> torch.Generator:
    """The CPU generator of all draws of one image."""
    return torch.Generator("cpu").manual_seed(seed)


class Draws(Protocol):
    """The draws of one image."""

    def randn(self, shape: Sequence[int]) -> Tensor:
        """The next draw, float32, on the CPU."""
        ...


class CpuDraws:
    """torch's CPU generator, as in diffusers."""

    def __init__(self, seed: int) -> None:
        self._generator = generator_for(seed)

    def randn(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self._generator)


class ComfyDraws:
    """ComfyUI's on a GPU: the first draw by the CPU, later ones by the GPU from the same seed."""

    def __init__(self, seed: int) -> None:
        self._first: Draws | None = CpuDraws(seed)
        self._rest = PhiloxDraws(seed)

    def randn(self, shape: Sequence[int]) -> Tensor:
        first, self._first = self._first, None
        return (first or self._rest).randn(shape)


DRAWS: dict[RngName, Callable[[int], Draws]] = {
    "cpu": CpuDraws,
    "a1111-gpu": PhiloxDraws,
    "comfy": ComfyDraws,
}


class StreamNoise:
    """Independent draws, image by image, each from its own source.

    The first call draws the start noise; diffusers with a list of generators draws the same.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device,
        rng: RngName = "cpu",
    ) -> None:
        """shape: (C, h, w) of one image."""
        self._draws = [DRAWS[rng](seed) for seed in seeds]
        self._shape = (1, *shape)
        self._device = device

    def draw(self) -> Tensor:
        """(B, C, h, w) float32 unit Gaussian noise."""
        draws = [image.randn(self._shape) for image in self._draws]
        return send(torch.cat(draws), self._device)

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        return self.draw()


class NoiseBetween:
    """The noise of two runs, interpolated along the great circle through each pair of draws.

    Gaussian draws lie near a sphere, which linear interpolation would leave (Shoemake, SIGGRAPH
    1985, section 3.3). A share of 0 is the first to the bit, and 1 the second.
    """

    def __init__(self, first: NoiseSource, second: NoiseSource, share: float) -> None:
        self._first, self._second, self._share = first, second, share

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """(B, C, h, w) float32; both runs draw, so that each keeps its own order."""
        first, second = self._first(sigma, sigma_next), self._second(sigma, sigma_next)
        return slerp(first, second, self._share)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """From `first` (0) to `second` (1) along a great circle, each image (C, h, w) by itself."""
    if share in (0.0, 1.0):
        return second if share else first
    dims = tuple(range(1, first.ndim))
    a, b = first.double(), second.double()
    norms = (a.square().sum(dims, keepdim=True) * b.square().sum(dims, keepdim=True)).sqrt()
    cosine = ((a * b).sum(dims, keepdim=True) / norms).clamp(-1.0, 1.0)
    angle = cosine.acos().clamp(min=1e-6)  # of equal draws, for which linear interpolation is exact
    mixed = ((1.0 - share) * angle).sin() * a + (share * angle).sin() * b
    return (mixed / angle.sin()).float()


class BrownianNoise:
    """Normalised increments of one Brownian path per image, in the clock tau = 1 / sigma^2.

    In that clock the noise of an ancestral step adds up exactly: with y = x / sigma^2 a step of
    DDIM with eta = 1 from s to t adds noise of variance 1/t^2 - 1/s^2, which is additive when the
    step is split. So a run with more steps sees the same noise, only finer.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> None:
        """shape: (C, h, w) of one image."""
        self._paths = [BrownianPath(seed, (1, *shape)) for seed in seeds]
        self._device = device

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        start, end = sigma**-2, sigma_next**-2
        scale = 1.0 / math.sqrt(abs(end - start))
        steps = [path(start, end) * scale for path in self._paths]
        return send(torch.cat(steps), self._device)


class BrownianPath:
    """A Brownian path W on tau > 0 that is a pure function of its seed.

    Every octave [2^k, 2^(k+1)) has its own total increment, refined by midpoint displacement
    (Levy's construction). Each Gaussian is drawn from a generator seeded by a hash of its node in
    the tree, so neither the order nor the spacing of queries changes the path.
    """

    LEVELS = 16  # below 2^-16 of an octave the path is taken as linear

    def __init__(self, seed: int, shape: Sequence[int]) -> None:
        self._seed = seed
        self._shape = tuple(shape)
        self._latest: tuple[float, Tensor] | None = None

    def __call__(self, start: float, end: float) -> Tensor:
        """W(end) - W(start), of variance |end - start|."""
        low, high = _octave(start), _octave(end)
        increment = self._within(end) - self._within(start)
        for octave in range(min(low, high), max(low, high)):
            whole = self._gaussian(octave, 0, 0) * math.sqrt(2.0**octave)
            increment = increment + (whole if high > low else -whole)
        return increment

    def _within(self, tau: float) -> Tensor:
        """W(tau) minus W at the start of tau's octave; the latest result is cached."""
        if self._latest is None or self._latest[0] != tau:
            self._latest = (tau, self._displace(tau))
        return self._latest[1]

    def _displace(self, tau: float) -> Tensor:
        octave = _octave(tau)
        width = 2.0**octave
        position = tau / width - 1.0  # in [0, 1)
        left = torch.zeros(self._shape)
        right = self._gaussian(octave, 0, 0) * math.sqrt(width)
        index = 0
        for level in range(1, self.LEVELS + 1):
            bridge = self._gaussian(octave, level, index) * (0.5 * math.sqrt(width))
            middle = (left + right) * 0.5 + bridge
            width /= 2
            position *= 2
            index *= 2
            if position >= 1.0:
                left, position, index = middle, position - 1.0, index + 1
            else:
                right = middle
        return left + (right - left) * position

    def _gaussian(self, octave: int, level: int, index: int) -> Tensor:
        interval = f"{self._seed}/{octave}/{level}/{index}".encode()
        seed = int.from_bytes(blake2b(interval, digest_size=8).digest()) >> 1
        return torch.randn(self._shape, generator=generator_for(seed))


def _octave(tau: float) -> int:
    """k with 2^k <= tau < 2^(k+1)."""
    return math.frexp(tau)[1] - 1
