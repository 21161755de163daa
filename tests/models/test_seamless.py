"""Networks that wrap around: a picture rolled is the same picture, rolled."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffgen.models.config import UNetConfig, VaeConfig
from diffgen.models.fast.inference import prepare
from diffgen.models.seamless import Axes, Seamless
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Conditioning

SHIFTS = {"x": (0, 4), "y": (4, 0), "xy": (4, 8)}


def decoder() -> tuple[nn.Module, Callable[[Tensor], Tensor], int]:
    torch.manual_seed(0)
    vae = Autoencoder(VaeConfig(channels=(16, 32, 32), norm_groups=8)).eval()
    return vae, vae.decode, vae.config.factor


def unet() -> tuple[nn.Module, Callable[[Tensor], Tensor], int]:
    torch.manual_seed(0)
    config = UNetConfig(
        channels=(32, 64),
        blocks=(1, 1),
        depth=(1, 0),
        num_heads=(4, 4),
        context_dim=32,
        norm_groups=8,
    )
    network = UNet(config).eval()
    cond = Conditioning(torch.randn(1, 7, 32))
    return network, lambda x: network(x, torch.tensor([500.0]), cond), 1


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("make", [decoder, unet])
def test_rolled_latents_give_the_rolled_result(
    make: Callable[[], tuple[nn.Module, Callable[[Tensor], Tensor], int]],
    packed: bool,
    axes: Axes,
) -> None:
    network, run, scale = make()
    x, (down, across) = torch.randn(1, 4, 16, 24), SHIFTS[axes]
    with torch.inference_mode():
        plain = run(x)
        if packed:
            prepare(network)
        seamless = Seamless([network], axes)
        straight, rolled = run(x), run(x.roll((down, across), (2, 3)))
        expected = straight.roll((down * scale, across * scale), (2, 3))
        torch.testing.assert_close(rolled, expected, atol=1e-4, rtol=0.0)
        assert (straight - plain).abs().max() > 1e-2  # edges saw zeros before
        seamless.undo()
        torch.testing.assert_close(run(x), plain, atol=1e-4, rtol=0.0)


def test_one_axis_leaves_the_edges_of_the_other() -> None:
    """Only rolling along the wrapped axis is free."""
    network, run, scale = decoder()
    x = torch.randn(1, 4, 16, 24)
    with torch.inference_mode():
        Seamless([network], "x")
        rolled, expected = run(x.roll(4, 2)), run(x).roll(4 * scale, 2)
    assert (rolled - expected).abs().max() > 1e-2
