"""Tools for comparing our networks with the reference ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


def randomize(module: nn.Module) -> None:
    """Redraw every parameter, keeping activations near unit size.

    Fresh modules have biases of 0 and norm weights of 1; a swapped or ignored one would go unseen.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(0.5, 0.3, generator=generator)


@pytest.fixture(scope="session")
def copy_random_weights() -> Callable[..., None]:
    """copy(reference, ours): random weights for the reference, the same in our module."""

    def copy(reference: nn.Module, ours: nn.Module, *, rename: Callable[[str], str] = str) -> None:
        randomize(reference)
        tensors = {rename(key): tensor for key, tensor in reference.state_dict().items()}
        ours.load_state_dict(tensors, strict=True, assign=True)

    return copy


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Equal shapes, and a relative error (Frobenius norm) within `tolerance`.

    Both sides sum the same fp32 products in another order: errors here are about 1e-6.
    """

    def check(actual: Tensor, expected: Tensor, *, tolerance: float = 1e-5) -> None:
        assert actual.shape == expected.shape
        error = (actual.double() - expected.double()).norm() / expected.double().norm()
        assert error <= tolerance

    return check


def norm_eps(module: nn.Module) -> dict[str, float]:
    """The eps of every normalisation, which no weight would show."""
    norms = (nn.GroupNorm, nn.LayerNorm)
    return {name: m.eps for name, m in module.named_modules() if isinstance(m, norms)}


@pytest.fixture(scope="session")
def assert_same_layout() -> Callable[..., None]:
    """The same names, shapes and norm eps in both modules, and no buffers in ours."""

    def check(ours: nn.Module, reference: nn.Module, *, rename: Callable[[str], str] = str) -> None:
        expected = {(rename(key), t.shape) for key, t in reference.state_dict().items()}
        assert {(key, t.shape) for key, t in ours.state_dict().items()} == expected
        assert norm_eps(ours) == {rename(k): eps for k, eps in norm_eps(reference).items()}
        assert not list(ours.buffers())

    return check


@pytest.fixture(scope="session")
def assert_gradients_flow() -> Callable[[nn.Module, Tensor], None]:
    """Every parameter has a finite gradient of `result`, weighted so that nothing cancels."""

    def check(module: nn.Module, result: Tensor) -> None:
        weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(0))
        (result * weights).sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    return check
