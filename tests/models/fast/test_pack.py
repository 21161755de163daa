"""Networks packed for inference compute what plain ones do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffgen.kernels import packed
from diffgen.kernels.packed import (
    PackedConv2d,
    PackedLinear,
    PackedPointwise,
    can_pack,
    is_pointwise,
)
from diffgen.models.config import UNetConfig, VaeConfig
from diffgen.models.fast.pack import PackedUpsample, fold, pack_weights
from diffgen.models.layers import Upsample
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Conditioning

CPU = torch.device("cpu")


def packable(dtype: torch.dtype) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not can_pack(CPU, dtype), reason=f"{dtype} is not packed here")


each_dtype = pytest.mark.parametrize(
    "dtype",
    [pytest.param(dtype, marks=packable(dtype)) for dtype in (torch.float32, torch.bfloat16)],
)
# Sums in another order round differently: by a share of the plain error, and by float32's own.
MORE, SINGLE = 1.2, 2e-6


def distance(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


def tiny_unet() -> UNet:
    torch.manual_seed(0)
    config = UNetConfig(
        sample_size=8,
        channels=(16, 32),
        blocks=(1, 1),
        depth=(1, 1),
        num_heads=(1, 2),
        context_dim=12,
        norm_groups=8,
    )
    return UNet(config).requires_grad_(False)


@each_dtype
@pytest.mark.parametrize(("batch", "height", "width"), [(2, 8, 8), (1, 5, 7), (3, 16, 4)])
@torch.inference_mode()
def test_no_farther_from_exact_than_plain_weights(dtype, batch, height, width):
    unet = tiny_unet().double()
    x, t = torch.randn(batch, 4, height, width).double(), torch.full((batch,), 300)
    cond = Conditioning(torch.randn(batch, 5, 12).double())
    exact = unet(x, t, cond)
    unet.to(dtype)
    given, text = x.to(dtype), cond.map(lambda tensor: tensor.to(dtype))
    plain = distance(unet(given, t, text), exact)
    pack_weights(unet)
    assert distance(unet(given, t, text), exact) < MORE * plain + SINGLE
    assert torch.equal(unet(given, t, text), unet(given, t, text))


@packable(torch.float32)
def test_every_layer_is_packed_and_its_weight_given_up():
    unet = tiny_unet()
    layers = sum(isinstance(m, nn.Linear | nn.Conv2d) for m in unet.modules())
    pack_weights(unet)
    count = sum(isinstance(m, PackedLinear | PackedConv2d) for m in unet.modules())
    assert count == layers
    plain = {name for name, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert plain == {"up_blocks.0.upsamplers.0.plain.conv"}  # kept for odd sizes


@pytest.mark.parametrize("plenty", [True, False])
@packable(torch.float32)
@torch.inference_mode()
def test_each_size_of_map_gets_its_own_packing_and_the_same_numbers(plenty, monkeypatch):
    """Where blocks follow the size, earlier packings stay if there is memory for them."""
    monkeypatch.setattr(packed, "blocks_follow_size", lambda: True)
    monkeypatch.setattr(packed, "available_memory", lambda: 1 << 62 if plenty else 0)
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 40, 3, padding=1)
    layer = PackedConv2d(plain)
    for size in ((8, 8), (1, 1), (5, 7), (8, 8), (32, 32)):
        x = torch.randn(2, 24, *size)
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-6)
    kept = {(8, 8), (1, 1), (5, 7), (32, 32)} if plenty else {(32, 32)}
    assert set(layer.packings) == kept
    assert layer.plain is None


@packable(torch.float32)
@torch.inference_mode()
def test_blocks_of_all_but_tiny_maps_are_one_packing_elsewhere(monkeypatch):
    monkeypatch.setattr(packed, "available_memory", lambda: 1 << 62)
    monkeypatch.setattr(packed, "blocks_follow_size", lambda: False)
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 40, 3, padding=1)
    layer = PackedConv2d(plain)
    for side in (8, 1, 32, 2, 16):
        x = torch.randn(1, 24, side, side)
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-6)
    assert set(layer.packings) == {(0, 0), (1, 1), (2, 2)}


@each_dtype
@pytest.mark.parametrize("rows", [(1,), (2,), (3, 5), (1, 1)])
@torch.inference_mode()
def test_a_row_is_the_same_alone_and_among_others(dtype, rows):
    torch.manual_seed(0)
    plain = nn.Linear(48, 64).to(dtype)
    layer = PackedLinear(plain)
    x = torch.randn(*rows, 48).to(dtype)
    assert layer(x).shape == (*rows, 64)
    torch.testing.assert_close(layer(x), plain(x))
    torch.testing.assert_close(layer(x[:1]), layer(x)[:1], rtol=0, atol=0)


@each_dtype
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_pointwise_convolution_is_a_linear_layer(dtype, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(24, 40, 1, bias=bias).to(dtype)
    assert is_pointwise(plain)
    for x in (torch.randn(2, 24, 5, 7), torch.randn(1, 24, 1, 1)):
        torch.testing.assert_close(PackedPointwise(plain)(x.to(dtype)), plain(x.to(dtype)))


def test_only_a_plain_1_x_1_convolution_is_pointwise():
    for options in ({"stride": 2}, {"padding": 1}, {"groups": 2}):
        assert not is_pointwise(nn.Conv2d(4, 4, 1, **options))
    assert not is_pointwise(nn.Conv2d(4, 4, 3))


@torch.inference_mode()
def test_the_folded_convolution_is_doubling_and_convolving():
    torch.manual_seed(0)
    plain = Upsample(6).double()
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    folded = fold(plain.conv)
    y = F.conv2d(x, folded.weight.double(), folded.bias, padding=1).unflatten(1, (2, 2, 6))
    expected = plain(x)
    for row in (0, 1):
        for column in (0, 1):
            part = y[:, row, column, :, row : row + 5, column : column + 7]
            assert torch.allclose(part, expected[:, :, row::2, column::2], atol=1e-6)


@each_dtype
@pytest.mark.parametrize("size", [None, (10, 14), (9, 13), (9, 14)])
@torch.inference_mode()
def test_upsampling_no_farther_from_exact_than_plain(dtype, size):
    torch.manual_seed(0)
    plain = Upsample(32).double()
    x = torch.randn(2, 32, 5, 7).double()
    target = None if size is None else torch.Size(size)
    exact = plain(x, target)
    plain.to(dtype)
    error = distance(plain(x.to(dtype), target), exact)
    ours = PackedUpsample(plain)(x.to(dtype), target)
    assert ours.shape == exact.shape
    assert distance(ours, exact) < MORE * error + SINGLE


@each_dtype
@torch.inference_mode()
def test_a_packed_decoder_is_no_farther_from_exact(dtype):
    torch.manual_seed(0)
    vae = Autoencoder(VaeConfig(channels=(16, 32), blocks=1, norm_groups=8)).double()
    latents = torch.randn(1, 4, 8, 6).double()
    exact = vae.decode(latents)
    vae.to(dtype)
    plain = distance(vae.decode(latents.to(dtype)), exact)
    pack_weights(vae)
    assert distance(vae.decode(latents.to(dtype)), exact) < MORE * plain + SINGLE
