"""The oracle: a denoising loop over one of diffusers' schedulers, as its pipelines run it."""

import inspect
from collections.abc import Callable

import diffusers
import pytest
import torch
from torch import Tensor

from diffgen.types import Conditioning

SHAPE = (4, 8, 8)
SEED = 3
SCALED_LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
Network = Callable[..., Tensor]
# diffusers hands tensors to numpy in ways that numpy 2 warns about.
numpy_2_warns = pytest.mark.filterwarnings("ignore:__array_(wrap_)?_:DeprecationWarning")


def toy_network() -> Network:
    """A network in miniature: nonlinear in x, depends on t, mixes channels, output about 1."""
    weight = 0.5 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))

    def network(x: Tensor, t: Tensor | float, cond: Conditioning | None = None) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float32).reshape(-1, 1, 1, 1)
        mixed = torch.einsum("oc,bchw->bohw", weight.to(x.dtype), x)
        wave = (0.3 * torch.sin(t / 150)).to(x.dtype)
        return 0.9 * torch.tanh(mixed + wave) + 0.3 * x

    return network


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def initial_noise() -> Tensor:
    return torch.randn((1, *SHAPE), generator=generator())


def run_scheduler(scheduler: diffusers.SchedulerMixin, **step_options: float) -> Tensor:
    """Sample with a scheduler whose timesteps are set; options go to `step`."""
    network, source = toy_network(), generator()
    x = torch.randn((1, *SHAPE), generator=source) * scheduler.init_noise_sigma
    if "generator" in inspect.signature(scheduler.step).parameters:
        step_options = {**step_options, "generator": source}
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, **step_options).prev_sample
    return x


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())
