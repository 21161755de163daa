import torch
from torch import nn

from diffgen.train.ema import Ema


def linear(value):
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_the_average_by_hand():
    module = linear(1.0)
    ema = Ema(module, 0.5)
    nn.init.constant_(module.weight, 2.0)
    ema.update()  # decay 2/11: mostly the new value
    first = 2 / 11 * 1.0 + 9 / 11 * 2.0
    assert abs(ema.average["weight"].item() - first) < 1e-6
    for _ in range(20):
        before = ema.average["weight"].item()
        ema.update()
    assert abs(ema.average["weight"].item() - (before + 2.0) / 2) < 1e-6


def test_applied_swaps_and_restores():
    module = linear(1.0)
    ema = Ema(module, 0.9)
    nn.init.constant_(module.weight, 3.0)
    with ema.applied():
        assert module.weight.item() == 1.0
    assert module.weight.item() == 3.0
    assert ema.average["weight"].item() == 1.0


def test_frozen_parameters_are_left_out():
    module = nn.Sequential(linear(1.0), linear(2.0))
    module[0].requires_grad_(False)
    assert list(Ema(module, 0.9).average) == ["1.weight"]


def test_state_goes_round():
    module = linear(1.0)
    ema, other = Ema(module, 0.9), Ema(linear(5.0), 0.9)
    nn.init.constant_(module.weight, 2.0)
    ema.update()
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.average["weight"], ema.average["weight"])
