"""Which backend computes, and that a network computes the same with each."""

import pytest
import torch
from torch import nn

from diffgen.errors import DeviceError, UsageError
from diffgen.kernels import ops
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.types import Conditioning

CPU = torch.device("cpu")
TINY = UNetConfig(
    sample_size=8,
    channels=(16, 32),
    blocks=(1, 1),
    depth=(0, 1),
    num_heads=(1, 2),
    context_dim=12,
    norm_groups=8,
)


@pytest.fixture
def choose(monkeypatch):
    """Ask for a backend as a user would."""

    def chosen(name: str | None, *, interpreted: bool = True) -> None:
        ops.backend.cache_clear()
        monkeypatch.delenv(ops.VARIABLE, raising=False)
        if name is not None:
            monkeypatch.setenv(ops.VARIABLE, name)
        monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")

    yield chosen
    ops.backend.cache_clear()


def test_a_word_that_is_no_backend(choose):
    choose("cuda")
    with pytest.raises(UsageError, match='DIFFGEN_KERNELS="cuda" is no backend: use auto, torch'):
        ops.check_backend(CPU)


def test_a_demand_that_cannot_be_met(choose, monkeypatch):
    choose("triton", interpreted=False)
    with pytest.raises(DeviceError, match="needs a CUDA device, not cpu"):
        ops.layer_norm(torch.ones(1, 4), torch.ones(4), torch.ones(4), eps=1e-5)
    monkeypatch.setattr(ops, "find_spec", lambda _name: None)
    with pytest.raises(DeviceError, match="the triton package, which is not installed"):
        ops.check_backend(torch.device("cuda"))


@pytest.mark.parametrize("name", [None, "auto", "torch"])
def test_torch_needs_nothing(choose, monkeypatch, name):
    choose(name, interpreted=False)
    monkeypatch.setattr(ops, "find_spec", lambda _name: None)
    ops.check_backend(CPU)
    assert ops.gated_gelu(torch.ones(1, 4)).shape == (1, 2)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
def test_a_network_computes_the_same(choose):
    torch.manual_seed(0)
    unet = UNet(TINY).requires_grad_(False)
    for norm in unet.modules():
        if isinstance(norm, nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    cond = Conditioning(torch.randn(2, 5, 12))
    choose("torch")
    expected = unet(x, t, cond)
    choose("triton")
    made = unet(x, t, cond)
    assert not torch.equal(made, expected)  # so another backend did compute
    # Both round in float32; a wrong operator would be off by more than a part in a million.
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_gradients_go_through_torch(choose):
    choose("triton")
    x = torch.randn(2, 6, requires_grad=True)
    ops.gated_gelu(x).sum().backward()
    assert x.grad is not None
