"""Networks prepared for inference compute what plain ones do, with fewer products."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffgen.kernels.packed import PackedConv2d, PackedLinear
from diffgen.models.config import UNetConfig
from diffgen.models.fast.inference import (
    FusedCrossAttention,
    FusedSelfAttention,
    fuse,
    prepare,
    put_channels_last,
)
from diffgen.models.layers import TransformerBlock
from diffgen.models.unet import UNet
from diffgen.types import Conditioning


def tiny_unet(*, upcast: bool = False) -> UNet:
    torch.manual_seed(0)
    config = UNetConfig(
        channels=(16, 32),
        blocks=(1, 1),
        depth=(1, 2),
        mid_depth=1,
        num_heads=(1, 2),
        context_dim=12,
        norm_groups=8,
        upcast_attention=upcast,
    )
    return UNet(config).requires_grad_(False)


def given(dtype: torch.dtype, *, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    torch.manual_seed(1)
    x, context = torch.randn(batch, 4, 8, 6), torch.randn(batch, 5, 12)
    return x.to(dtype), torch.full((batch,), 300), Conditioning(context.to(dtype))


@pytest.mark.parametrize("upcast", [False, True])
@torch.inference_mode()
def test_fused_attention_is_attention(upcast):
    unet = tiny_unet(upcast=upcast).double()
    inputs = given(torch.float64)
    plain = unet(*inputs)
    fuse(unet)
    # `upcast` means float32, whatever the weights are.
    assert torch.allclose(unet(*inputs), plain, rtol=0, atol=1e-6 if upcast else 1e-13)


def test_every_block_is_fused_and_its_weights_given_up():
    unet = tiny_unet()
    layers = sum(isinstance(m, nn.Linear) for m in unet.modules())
    blocks = [m for m in unet.modules() if isinstance(m, TransformerBlock)]
    fuse(unet)
    assert all(isinstance(block.attn1, FusedSelfAttention) for block in blocks)
    assert all(isinstance(block.attn2, FusedCrossAttention) for block in blocks)
    left = sum(isinstance(m, nn.Linear) for m in unet.modules())
    assert left == layers - 3 * len(blocks)  # q, k and v are one, k and v of the prompt too


@torch.inference_mode()
def test_the_prompt_s_keys_and_values_are_computed_once():
    unet = tiny_unet()
    prepare(unet)
    calls = []
    readers = [m for m in unet.modules() if isinstance(m, FusedCrossAttention)]
    for reader in readers:
        reader.to_kv.register_forward_hook(lambda *_: calls.append(1))
    x, t, first = given(torch.float32)
    second = first.map(lambda tensor: tensor + 1.0)
    drawn = [unet(x, t, cond) for cond in (first, first, second, first)]
    assert len(calls) == 3 * len(readers)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("pack", [True, False])
def test_weights_are_packed_where_that_helps(monkeypatch, pack):
    monkeypatch.setattr("diffgen.models.fast.inference.can_pack", lambda device, dtype: pack)
    unet = tiny_unet()
    prepare(unet)
    packed = any(isinstance(m, PackedLinear | PackedConv2d) for m in unet.modules())
    assert packed == pack


@torch.inference_mode()
def test_channels_last_is_for_good_and_exact():
    unet = tiny_unet().double()
    inputs = given(torch.float64)
    plain = unet(*inputs)
    layouts = []
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda _, __, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    put_channels_last(unet)
    assert torch.allclose(unet(*inputs), plain, rtol=0, atol=1e-13)
    assert layouts
    assert all(layouts)


class OnCuda(nn.Sequential):
    """Says that its weights are on a GPU."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        yield SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16)  # type: ignore[misc]


def test_weights_on_a_gpu_are_put_channels_last():
    network = OnCuda(nn.Conv2d(4, 6, 3).requires_grad_(False))
    prepare(network)
    assert isinstance(network[0], nn.Conv2d)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
