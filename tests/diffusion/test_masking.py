"""What is kept is kept, what is repainted is what the model alone would make of it."""

import pytest
import torch
from analytic import gaussian
from torch import Tensor

from diffgen.diffusion.masking import MaskedDenoiser
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig, SamplerName

CONFIG = NoiseConfig(steps_offset=1)
SD = NoiseSchedule.from_config(CONFIG)
CPU = torch.device("cpu")
SHAPE = (4, 4, 4)
DENOISE = gaussian(std=0.6, mean=0.3)  # treats each number by itself
HALF = torch.zeros(1, 1, 4, 4)
HALF[..., 2:] = 1.0


def run(name: SamplerName, mask: Tensor | None, init: Tensor) -> Tensor:
    settings = Sampling(sampler=name, schedule="karras", steps=6)
    plan = SamplingPlan.make(settings, CONFIG, SD)
    noise, source = plan.noise([7], SHAPE, CPU)
    x = plan.begin(noise, init)
    if mask is None:
        return plan.latents(plan.walk(DENOISE, x, source))
    denoise = MaskedDenoiser(DENOISE, init, mask, noise)
    return denoise.blended(plan.latents(plan.walk(denoise, x, source)))


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpm_adaptive"])
def test_every_sampler_repaints_one_half_and_keeps_the_other(name: SamplerName) -> None:
    """The adaptive solver alone looks at both halves when it chooses its steps."""
    init = torch.randn(1, *SHAPE)
    masked, free = run(name, HALF, init), run(name, None, init)
    assert torch.equal(masked[..., :2], init[..., :2])
    torch.testing.assert_close(masked[..., 2:], free[..., 2:])


def test_what_is_kept_is_seen_under_the_noise_of_one_draw() -> None:
    """Also where an ancestral sampler has added other noise."""
    init, noise, x = torch.randn(3, 1, *SHAPE)
    seen: list[Tensor] = []

    def denoise(state: Tensor, sigma: float) -> Tensor:
        seen.append(state)
        return state

    MaskedDenoiser(denoise, init, HALF, noise)(x, 3.0)
    assert torch.equal(seen[0][..., :2], (init + 3.0 * noise)[..., :2])
    assert torch.equal(seen[0][..., 2:], x[..., 2:])


def test_a_soft_mask_changes_a_part_by_its_share() -> None:
    init, noise, x = torch.randn(3, 1, *SHAPE)
    masked = MaskedDenoiser(lambda state, sigma: torch.zeros_like(state), init, HALF / 4, noise)
    torch.testing.assert_close(masked(x, 1.0), init * (1 - HALF / 4))
