"""Networks packed for inference compute what plain ones do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffgen.kernels.packed import PackedConv2d, PackedLinear, can_pack
from diffgen.models.config import UNetConfig, VaeConfig
from diffgen.models.layers import TransformerBlock, Upsample
from diffgen.models.pack import PackedCrossAttention, PackedUpsample, fold, pack_weights
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.types import Conditioning

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(
    not can_pack(CPU, torch.bfloat16), reason="this processor does not multiply bfloat16"
)


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
    layers = sum(isinstance(m, nn.Linear | nn.Conv2d) for m in unet.modules())
    blocks = sum(isinstance(m, TransformerBlock) for m in unet.modules())
    pack_weights(unet)
    packed = sum(isinstance(m, PackedLinear | PackedConv2d) for m in unet.modules())
    assert packed == layers - 3 * blocks  # q, k and v are one, k and v of the prompt too
    plain = {name for name, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert plain == {"up_blocks.0.upsamplers.0.plain.conv"}  # kept for odd sizes


@needs_bf16
@torch.inference_mode()
def test_the_prompt_s_keys_and_values_are_computed_once():
    unet = tiny_unet().bfloat16()
    pack_weights(unet)
    calls = []
    for module in unet.modules():
        if isinstance(module, PackedCrossAttention):
            module.to_kv.register_forward_hook(lambda *_: calls.append(1))
    x, t = torch.randn(1, 4, 8, 8).bfloat16(), torch.tensor([300])
    first, second = (Conditioning(torch.randn(1, 5, 12).bfloat16()) for _ in range(2))
    drawn = [unet(x, t, cond) for cond in (first, first, second, first)]
    blocks = sum(isinstance(m, PackedCrossAttention) for m in unet.modules())
    assert len(calls) == 3 * blocks
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[2])


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


@needs_bf16
@pytest.mark.parametrize("size", [None, (10, 14), (9, 13), (9, 14)])
@torch.inference_mode()
def test_upsampling_no_farther_from_float32_than_plain(size):
    torch.manual_seed(0)
    plain = Upsample(32)
    x = torch.randn(2, 32, 5, 7)
    target = None if size is None else torch.Size(size)
    exact = plain(x, target)
    plain.bfloat16()
    error = (plain(x.bfloat16(), target).float() - exact).norm()
    ours = PackedUpsample(plain)(x.bfloat16(), target)
    assert ours.shape == exact.shape
    assert (ours.float() - exact).norm() < 1.2 * error


@needs_bf16
@torch.inference_mode()
def test_a_packed_decoder_is_no_farther_from_float32():
    torch.manual_seed(0)
    vae = Autoencoder(VaeConfig(channels=(16, 32), blocks=1, norm_groups=8))
    latents = torch.randn(1, 4, 8, 6)
    exact = vae.decode(latents)
    vae.bfloat16()

    def error() -> float:
        return float((vae.decode(latents.bfloat16()).float() - exact).norm() / exact.norm())

    plain = error()
    pack_weights(vae)
    assert error() < 1.2 * plain
