"""The arithmetic that samplers share."""

import math

import numpy as np
import pytest
import torch

from diffgen.diffusion.samplers.common import (
    ancestral_split,
    churn,
    log_step,
    solve_vandermonde,
)

PAIRS = [(14.6, 9.0), (1.0, 0.999), (0.5, 0.03), (4096.0, 300.0), (4096.0, 0.03)]


@pytest.mark.parametrize(("sigma", "sigma_next"), PAIRS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ancestral_split_keeps_the_variance(sigma: float, sigma_next: float, eta: float) -> None:
    down, up = ancestral_split(sigma, sigma_next, eta)
    assert math.hypot(down, up) == pytest.approx(sigma_next, rel=1e-12)
    assert 0.0 <= down <= sigma_next


@pytest.mark.parametrize(("sigma", "sigma_next"), PAIRS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ancestral_noise_is_ddims(sigma: float, sigma_next: float, eta: float) -> None:
    """arXiv:2010.02502, equation 16, divided by sqrt(alpha_bar) of the next timestep."""
    a, a_next = (1.0 / (1.0 + s * s) for s in (sigma, sigma_next))
    # 1 - a / a_next without cancellation where the two are close.
    ratio = (sigma**2 - sigma_next**2) / (1.0 + sigma**2)
    expected = eta * math.sqrt((1.0 - a_next) / (1.0 - a)) * math.sqrt(ratio) / math.sqrt(a_next)
    assert ancestral_split(sigma, sigma_next, eta)[1] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("sigma", "sigma_next"), PAIRS)
def test_full_ancestral_noise_lands_at_the_posterior_mean(sigma: float, sigma_next: float) -> None:
    """q(x_next | x, x0) shrinks x - x0 by (sigma_next / sigma)^2 (arXiv:2006.11239, equation 7)."""
    down, _ = ancestral_split(sigma, sigma_next, 1.0)
    # sqrt(1 - up^2) loses digits where hardly anything is left below.
    assert down == pytest.approx(sigma_next**2 / sigma, rel=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 3.0])
def test_no_noise_at_the_end(eta: float) -> None:
    assert ancestral_split(0.03, 0.0, eta) == (0.0, 0.0)


@pytest.mark.parametrize("eta", [2.0, 100.0])
def test_too_much_noise_is_cut_at_the_next_level(eta: float) -> None:
    assert ancestral_split(14.6, 3.0, eta) == (0.0, 3.0)


def test_noise_does_not_grow_where_steps_do_not_descend() -> None:
    """Repeated noise levels are steps of nothing."""
    assert ancestral_split(0.5, 0.5, 1.0) == (0.5, 0.0)


def test_churn_reaches_its_noise_level() -> None:
    """arXiv:2206.00364, algorithm 2, lines 5 and 6."""
    x = torch.full((1, 1, 1, 1), 5.0)
    raised, sigma_hat = churn(x, 2.0, 0.25, lambda sigma, sigma_next: torch.ones_like(x))
    assert sigma_hat == 2.5
    assert float(raised) == pytest.approx(5.0 + math.sqrt(2.5**2 - 2.0**2))


def test_churn_is_capped_at_sqrt_2() -> None:
    x = torch.zeros(1)
    _, sigma_hat = churn(x, 2.0, 10.0, lambda sigma, sigma_next: x)
    assert sigma_hat == pytest.approx(2.0 * math.sqrt(2.0))


@pytest.mark.parametrize("amount", [0.0, -1.0])
def test_no_churn_draws_no_noise(amount: float) -> None:
    x = torch.zeros(1)
    raised, sigma_hat = churn(x, 2.0, amount, lambda sigma, sigma_next: pytest.fail("noise drawn"))
    assert raised is x
    assert sigma_hat == 2.0


def test_log_step_is_half_the_gain_in_log_snr() -> None:
    assert log_step(2.0, 0.5) == pytest.approx(math.log(4.0))
    assert log_step(2.0, 0.0) == math.inf


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_vandermonde_weights_solve_their_system(count: int) -> None:
    generator = np.random.default_rng(count)
    nodes = np.cumsum(generator.uniform(0.2, 1.0, count)) - 1.0
    moments = generator.normal(size=count)
    weights = solve_vandermonde(list(nodes), list(moments))
    expected = np.linalg.solve(np.vander(nodes, increasing=True).T, moments)
    np.testing.assert_allclose(weights, expected, rtol=1e-9)


def test_vandermonde_weights_are_adams_bashforth_for_equal_steps() -> None:
    weights = solve_vandermonde([0.0, -1.0, -2.0, -3.0], [1.0, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(weights, np.array([55, -59, 37, -9]) / 24, rtol=1e-13)


def test_vandermonde_leaves_its_input_alone() -> None:
    nodes, moments = [0.0, -1.0], [1.0, 0.5]
    solve_vandermonde(nodes, moments)
    assert (nodes, moments) == ([0.0, -1.0], [1.0, 0.5])
