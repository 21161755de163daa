"""diffgen.models.deltas: every kind of adapter by its published formula, in double precision."""

import pytest
import torch
from torch import Tensor

from diffgen.models.deltas import LayerDelta

GENERATOR = torch.Generator().manual_seed(3)
R, OUT, IN = 3, 12, 8


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def close(delta: LayerDelta, weight: Tensor, expected: Tensor) -> None:
    actual = delta.change(weight)
    assert actual.dtype == torch.float32
    error = (actual.double() - expected.double()).norm()
    assert error <= 1e-5 * expected.double().norm()


def d(tensor: Tensor) -> Tensor:
    return tensor.double()


def test_a_convolution_with_a_core() -> None:
    down, up, mid = rand(R, IN, 1, 1), rand(OUT, R, 1, 1), rand(R, R, 3, 3)
    expected = torch.zeros(OUT, IN, 3, 3, dtype=torch.float64)
    for i in range(R):
        for j in range(R):
            outer = torch.outer(d(up)[:, i, 0, 0], d(down)[j, :, 0, 0])
            expected += outer[:, :, None, None] * d(mid)[i, j]
    delta = LayerDelta("lora", {"down": down, "up": up, "mid": mid}, alpha=1.5)
    close(delta, rand(OUT, IN, 3, 3), 1.5 / R * expected)


def test_loha() -> None:
    a1, b1, a2, b2 = rand(OUT, R), rand(R, IN), rand(OUT, R), rand(R, IN)
    parts = {"w1_a": a1, "w1_b": b1, "w2_a": a2, "w2_b": b2}
    expected = (d(a1) @ d(b1)) * (d(a2) @ d(b2))
    close(LayerDelta("loha", parts, alpha=2.0), rand(OUT, IN), 2.0 / R * expected)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_lokr(whole: bool, kernel: tuple[int, ...]) -> None:
    """A kernel is the second factor's; where both are whole nothing is scaled."""
    c, a, b = rand(4, 2), rand(3, R), rand(R, 4, *kernel)
    product = (d(a) @ d(b).flatten(1)).reshape(3, 4, *kernel)
    parts = {"lokr_w2": product.float()} if whole else {"lokr_w2_a": a, "lokr_w2_b": b}
    expected = torch.zeros(OUT, IN, *kernel, dtype=torch.float64)
    for i in range(4):
        for j in range(2):
            expected[3 * i : 3 * i + 3, 4 * j : 4 * j + 4] = d(c)[i, j] * product
    scale = 1.0 if whole else 2.0 / R
    parts["lokr_w1"] = c
    close(LayerDelta("lokr", parts, alpha=2.0), rand(OUT, IN, *kernel), scale * expected)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_dora(rows: bool, kernel: tuple[int, ...]) -> None:
    weight, down, up = rand(OUT, IN, *kernel), rand(R, IN, *kernel), rand(OUT, R)
    merged = d(weight) + 0.5 * (d(up) @ d(down).flatten(1)).reshape(weight.shape)
    magnitude = rand(OUT if rows else IN)
    expected = torch.empty_like(merged)
    for n in range(OUT if rows else IN):
        part = merged[n] if rows else merged[:, n]
        turned = d(magnitude)[n] * part / part.norm()
        if rows:
            expected[n] = turned
        else:
            expected[:, n] = turned
    parts = {"down": down, "up": up}
    delta = LayerDelta("lora", parts, 0.5 * R, magnitude, rows)
    close(delta, weight, expected - d(weight))


@pytest.mark.parametrize("by_input", [True, False])
def test_ia3(by_input: bool) -> None:
    weight, numbers = rand(OUT, IN), rand(IN if by_input else OUT)
    parts = {"scaling": numbers} | ({"by_input": numbers} if by_input else {})
    expected = d(weight) * (d(numbers) if by_input else d(numbers)[:, None])
    close(LayerDelta("ia3", parts), weight, expected)


@pytest.mark.parametrize("old", [False, True])
def test_glora(old: bool) -> None:
    weight, a1, a2, b1, b2 = rand(OUT, IN), rand(IN, R), rand(R, IN), rand(OUT, R), rand(R, IN)
    named = {"a1": a1, "a2": a2, "b1": b1, "b2": b2}
    swapped = {"a1": a2, "a2": a1, "b1": b2, "b2": b1}
    expected = 2.0 / R * (d(weight) @ d(a1) @ d(a2) + d(b1) @ d(b2))
    close(LayerDelta("glora", swapped if old else named, alpha=2.0), weight, expected)


def test_oft() -> None:
    """Each block of outputs is turned by the Cayley transform of its block's skew part."""
    blocks, weight, rescale = rand(3, 4, 4), rand(OUT, IN), rand(OUT, 1)
    expected = []
    for block, rows in zip(d(blocks), d(weight).chunk(3), strict=True):
        skew, one = block - block.T, torch.eye(4, dtype=torch.float64)
        turn = (one + skew) @ torch.linalg.inv(one - skew)
        assert torch.allclose(turn @ turn.T, one)
        expected.append(turn.T @ rows)
    whole = d(rescale) * torch.cat(expected) - d(weight)
    close(LayerDelta("oft", {"blocks": blocks, "rescale": rescale}), weight, whole)
