"""Packed weights compute what plain ones do."""

import pytest
import torch
from torch import nn

from diffgen.kernels.packed import PackedConv2d, PackedLinear, can_pack, pack_weights
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.types import Conditioning

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(
    not can_pack(CPU, torch.bfloat16), reason="this processor does not multiply bfloat16"
)


def test_only_bfloat16_on_the_cpu_is_packed():
    assert not can_pack(CPU, torch.float32)
    assert not can_pack(CPU, torch.float16)
    assert not can_pack(torch.device("cuda"), torch.bfloat16)


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


@needs_bf16
@pytest.mark.parametrize(("batch", "height", "width"), [(2, 8, 8), (1, 5, 7), (3, 16, 4)])
@torch.inference_mode()
def test_no_farther_from_float32_than_plain_weights(batch, height, width):
    unet = tiny_unet()
    x, t = torch.randn(batch, 4, height, width), torch.full((batch,), 300)
    cond = Conditioning(torch.randn(batch, 5, 12))
    exact = unet(x, t, cond)
    unet.bfloat16()
    half, text = x.bfloat16(), cond.map(torch.Tensor.bfloat16)

    def error() -> float:
        return float((unet(half, t, text).float() - exact).norm() / exact.norm())

    plain = error()
    pack_weights(unet)
    assert error() < 1.2 * plain  # sums in another order round differently
    assert torch.equal(unet(half, t, text), unet(half, t, text))


@needs_bf16
def test_every_layer_is_packed_and_its_weight_given_up():
    unet = tiny_unet().bfloat16()
    count = sum(isinstance(m, nn.Linear | nn.Conv2d) for m in unet.modules())
    pack_weights(unet)
    assert sum(isinstance(m, PackedLinear | PackedConv2d) for m in unet.modules()) == count
    assert not [m for m in unet.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
