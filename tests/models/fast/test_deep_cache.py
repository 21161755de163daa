"""DeepCache: what it reuses, when it computes anew, and that whole evaluations are exact."""

import pytest
import torch
from test_unet import SD1, SDXL
from torch import Tensor

from diffgen.models.config import UNetConfig
from diffgen.models.fast.deep_cache import DeepCache
from diffgen.models.unet import UNet
from diffgen.types import Conditioning


def network(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    return UNet(config).eval().requires_grad_(False)


def arguments(config: UNetConfig, t: float, batch: int = 1) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(int(t))
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    cond = Conditioning(
        draw(batch, 7, config.context_dim),
        pooled=draw(batch, 20) if config.added_dim else None,
        time_ids=torch.full((batch, 6), 64.0) if config.added_dim else None,
    )
    return draw(batch, 4, 16, 16), torch.full((batch,), t), cond


@pytest.mark.parametrize("config", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_every_third_evaluation_is_whole(config: UNetConfig) -> None:
    unet = network(config)
    cached = DeepCache(unet.compute, unet.reuse, every=3)
    exact = []
    for t in (900, 800, 700, 600, 500, 400, 300):
        given = arguments(config, t)
        exact.append(torch.equal(cached(*given), unet(*given)))
    assert exact == [True, False, False, True, False, False, True]


def test_the_first_evaluations_are_whole() -> None:
    unet = network(SD1)
    cached = DeepCache(unet.compute, unet.reuse, every=2, first=3)
    exact = []
    for t in (900, 800, 700, 600, 500, 400, 300):
        given = arguments(SD1, t)
        exact.append(torch.equal(cached(*given), unet(*given)))
    assert exact == [True, True, True, False, True, False, True]


def test_what_is_reused_is_what_the_lower_levels_made() -> None:
    unet = network(SD1)
    cached = DeepCache(unet.compute, unet.reuse, every=2)
    first, second = arguments(SD1, 900), arguments(SD1, 800)
    cached(*first)
    kept = unet.bottom(unet.top(*first))
    assert torch.equal(cached(*second), unet.finish(kept, unet.top(*second)))


def test_every_evaluation_can_be_whole() -> None:
    unet = network(SD1)
    cached = DeepCache(unet.compute, unet.reuse, every=1)
    for t in (900, 800, 700):
        given = arguments(SD1, t)
        assert torch.equal(cached(*given), unet(*given))


def test_a_batch_of_another_size_is_computed_anew() -> None:
    unet = network(SD1)
    cached = DeepCache(unet.compute, unet.reuse, every=5)
    cached(*arguments(SD1, 900, batch=2))
    given = arguments(SD1, 800, batch=1)
    assert torch.equal(cached(*given), unet(*given))


def test_one_level_has_nothing_to_reuse_but_the_middle() -> None:
    config = UNetConfig(
        channels=(32,), blocks=(1,), depth=(1,), num_heads=(2,), context_dim=8, norm_groups=8
    )
    unet = network(config)
    cached = DeepCache(unet.compute, unet.reuse, every=2)
    given = arguments(config, 900)
    assert torch.equal(cached(*given), unet(*given))
    assert cached(*arguments(config, 800)).shape == (1, 4, 16, 16)
