"""diffgen.models.lora: adapters that begin as nothing, learn alone, and merge into the weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffgen.models.lora import AdaptedLayer, Changes, LoraDelta, add_lora, merge

RANK = 3


class Small(nn.Module):
    """One layer of each kind that the networks have, some of them in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.point = nn.Conv2d(6, 5, 1)
        self.norm = nn.GroupNorm(1, 5)
        self.out = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Linear(7, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.norm(self.point(self.conv(x))).flatten(2).transpose(1, 2))
        return y


LAYERS = ("conv", "point", "out.0", "out.1")


def everything(name: str) -> bool:
    return True


def small() -> Small:
    torch.manual_seed(0)
    return Small().requires_grad_(True)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1))


def learned(network: nn.Module, alpha: float = 2.0) -> dict[str, LoraDelta]:
    """Adapters everywhere, with an `up` that is not zero any more."""
    adapters = add_lora(network, everything, rank=RANK, alpha=alpha)
    for adapter in adapters.values():
        nn.init.normal_(adapter.up.weight)
    return {name: adapter.delta() for name, adapter in adapters.items()}


def together(loras: list[tuple[dict[str, LoraDelta], float]]) -> Changes:
    return {name: [(deltas[name], weight) for deltas, weight in loras] for name in LAYERS}


def test_adapters_begin_as_nothing(x: Tensor) -> None:
    network = small().requires_grad_(False)
    before = network(x)
    adapters = add_lora(network, everything, rank=RANK, alpha=8.0)
    assert tuple(adapters) == LAYERS
    assert torch.equal(network(x), before)
    assert all(adapter.down.weight.abs().min() > 0 for adapter in adapters.values())


def test_only_the_selected_layers_have_one() -> None:
    network = small()
    adapters = add_lora(network, lambda name: name in {"point", "out.1"}, rank=RANK, alpha=1.0)
    assert tuple(adapters) == ("point", "out.1")
    found = [name for name, m in network.named_modules() if isinstance(m, AdaptedLayer)]
    assert found == ["point", "out.1"]


def test_only_the_adapters_learn(x: Tensor) -> None:
    network = small()
    adapters = add_lora(network, everything, rank=RANK, alpha=1.0)
    network(x).square().sum().backward()
    inside = {id(p) for adapter in adapters.values() for p in adapter.parameters()}
    assert len(inside) == 2 * len(LAYERS)
    for parameter in network.parameters():
        assert parameter.requires_grad == (id(parameter) in inside)
        assert (parameter.grad is not None) == (id(parameter) in inside)


def test_the_equation() -> None:
    """alpha / rank * B A, for a matrix and for a kernel; both are exact in these numbers."""
    delta = LoraDelta(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [5.0]]), alpha=0.5)
    assert delta.weight().tolist() == [[1.5, 3.0], [2.5, 5.0]]
    kernel = torch.arange(2 * 4 * 3 * 3.0).reshape(2, 4, 3, 3)
    up = torch.tensor([[1.0, 0.0], [0.0, -1.0], [2.0, 1.0]])[..., None, None]
    weight = LoraDelta(kernel, up, alpha=4.0).weight()
    expected = torch.stack([kernel[0], -kernel[1], 2 * kernel[0] + kernel[1]]) * 2
    assert torch.equal(weight, expected)


@pytest.mark.parametrize("alpha", [RANK, 0.7])
def test_merging_gives_what_the_adapters_gave(
    x: Tensor, alpha: float, assert_close: Callable[..., None]
) -> None:
    adapted, plain = small(), small()
    deltas = learned(adapted, alpha)
    base = plain(x)
    merge(plain, together([(deltas, 1.0)]))
    assert (plain(x) - base).norm() > 0.1 * base.norm()
    assert_close(plain(x), adapted(x))


def test_half_of_twice_is_once(x: Tensor, assert_close: Callable[..., None]) -> None:
    once, twice = small(), small()
    deltas = learned(small())
    merge(once, together([(deltas, 1.0)]))
    merge(twice, together([(deltas, 0.5), (deltas, 0.5)]))
    assert_close(twice(x), once(x))


def test_many_loras_round_once() -> None:
    """In bfloat16, four quarters one after the other would not even add up."""
    once, quarters = small().bfloat16(), small().bfloat16()
    deltas = learned(small())
    merge(once, together([(deltas, 1.0)]))
    merge(quarters, together([(deltas, 0.25)] * 4))
    for name in LAYERS:
        assert torch.equal(quarters.get_submodule(name).weight, once.get_submodule(name).weight)


def test_another_alpha_changes_nothing(assert_close: Callable[..., None]) -> None:
    for delta in learned(small(), alpha=0.7).values():
        other = delta.with_alpha(float(delta.rank))
        assert other.alpha == RANK
        assert_close(other.weight(), delta.weight())


def test_merging_replaces_weights_and_keeps_their_number_format() -> None:
    network = small().to(torch.bfloat16).requires_grad_(False)
    kept = {name: network.get_submodule(name).weight for name in LAYERS}
    values = {name: weight.clone() for name, weight in kept.items()}
    merge(network, together([(learned(small()), 1.0)]))
    for name, weight in kept.items():
        new = network.get_submodule(name).weight
        assert new.dtype == torch.bfloat16
        assert not new.requires_grad
        assert not torch.equal(new, weight)
        assert torch.equal(weight, values[name])  # which may be a file's memory
