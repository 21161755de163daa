"""Samplers against exact solutions: measured orders, exactness on polynomials, right variances.

On a mixture of Gaussians the best denoiser is known and curved, and the exact solution comes from
an adaptive Runge-Kutta method of order 8. On a single Gaussian every sampler is a linear map of its
noise, so the variance of its results can be computed without drawing any.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
from analytic import Denoise, gaussian, last, mixture, points, solve
from torch import Tensor

from diffgen.diffusion.noise import BrownianNoise, StreamNoise
from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.samplers.consistency import sample_lcm
from diffgen.diffusion.samplers.dpm_solver import fast_orders, sample_dpm_adaptive, sample_dpm_fast
from diffgen.diffusion.samplers.dpmpp import (
    sample_dpmpp_2m,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
)
from diffgen.diffusion.samplers.euler import sample_euler, sample_euler_ancestral
from diffgen.diffusion.samplers.multistep import (
    sample_deis,
    sample_ipndm,
    sample_lms,
    sample_plms,
)
from diffgen.diffusion.samplers.sde import sample_er_sde, sample_sa_solver
from diffgen.diffusion.samplers.second_order import sample_dpm2, sample_heun, sample_restart
from diffgen.diffusion.samplers.unipc import sample_unipc
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule, linspace
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig, SamplerName, Steps

CPU = torch.device("cpu")
TOP, BOTTOM = 10.0, 0.02
NO_NOISE = (math.inf, math.inf)  # an interval of noise levels that holds none


def log_uniform(steps: int, top: float = TOP, bottom: float = BOTTOM) -> list[float]:
    return [math.exp(value) for value in linspace(math.log(top), math.log(bottom), steps + 1)]


def silent(sigma: float, sigma_next: float) -> float:
    """Noise that is always 0: what is left of an SDE solver is its drift."""
    return 0.0


def dpm_fast(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: object) -> Steps:
    """DPM-fast up to its last positive noise level, before the closing evaluation."""
    yield from list(sample_dpm_fast(denoise, x, [*sigmas, 0.0], noise=noise))[:-1]


def errors(
    sampler: Callable[..., Steps],
    steps: Sequence[int],
    rate: Callable[[float], float] = lambda sigma: 1.0,
) -> list[float]:
    """Relative distances to the exact solution on the mixture."""
    denoise, x = mixture(), points(TOP)
    exact = solve(denoise, x, TOP, BOTTOM, rate)
    results = (last(sampler(denoise, x, log_uniform(n), noise=silent)) for n in steps)
    return [float((result - exact).norm() / exact.norm()) for result in results]


def slopes(values: Sequence[float]) -> list[float]:
    """Orders of convergence, from values at step counts that double each time."""
    return [math.log2(abs(a / b)) for a, b in pairwise(values)]


# Method, and its order as measured with 48, 96 and 192 steps. Multistep methods start with steps of
# lower order; as little happens at high noise, their own order shows until rounding takes over.
ODE_SOLVERS: dict[str, tuple[Callable[..., Steps], float]] = {
    "euler": (sample_euler, 1.0),
    "ddim": (partial(sample_euler_ancestral, eta=0.0), 1.0),
    "heun": (sample_heun, 2.0),
    "dpm2": (sample_dpm2, 2.0),
    "dpmpp_2s_a eta=0": (partial(sample_dpmpp_2s_ancestral, eta=0.0), 2.0),
    "dpmpp_2m": (sample_dpmpp_2m, 2.0),
    "dpmpp_sde eta=0": (partial(sample_dpmpp_sde, eta=0.0), 2.0),
    "dpmpp_2m_sde eta=0": (partial(sample_dpmpp_2m_sde, eta=0.0), 2.0),
    "deis": (sample_deis, 2.0),
    "ipndm": (sample_ipndm, 2.0),  # its weights suppose equal steps: not 4
    "plms": (sample_plms, 2.0),
    "sa_solver tau=0": (partial(sample_sa_solver, stochastic_between=NO_NOISE), 2.0),
    "unipc": (partial(sample_unipc, variant="bh2"), 3.0),  # the corrector gains an order
    "unipc_bh1": (partial(sample_unipc, variant="bh1"), 3.0),
    "lms order=2": (partial(sample_lms, order=2), 2.0),
    "lms order=3": (partial(sample_lms, order=3), 3.0),
}


@pytest.mark.parametrize("name", ODE_SOLVERS)
def test_order_on_the_probability_flow_ode(name: str) -> None:
    sampler, order = ODE_SOLVERS[name]
    measured = slopes(errors(sampler, (48, 96, 192)))
    assert measured == pytest.approx([order, order], abs=0.25)


def test_lms_is_better_than_order_3_until_its_start_shows() -> None:
    assert min(slopes(errors(sample_lms, (24, 48, 96)))) > 3.2


def test_dpm_fast_is_of_order_3() -> None:
    """With 23, 47, 95 evaluations the steps are of order 3 and the last of order 2."""
    measured = slopes(errors(dpm_fast, (23, 47, 95, 191)))
    assert measured[-1] == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize(
    ("evaluations", "orders"),
    [(0, []), (1, [1]), (2, [2]), (3, [2, 1]), (4, [3, 1]), (5, [3, 2]), (6, [3, 2, 1])],
)
def test_dpm_fast_spends_its_budget(evaluations: int, orders: list[int]) -> None:
    """arXiv:2206.00927, section 3.4: order 3 as often as it fits, and never in the last step."""
    assert fast_orders(evaluations) == orders
    if evaluations:
        assert fast_orders(evaluations + 30) == [3] * 10 + orders


def test_plms_on_v_is_of_order_1_only() -> None:
    """Combining v but stepping along eps, as diffusers does, gives up the second order."""
    measured = slopes(errors(partial(sample_plms, combine_v=True), (48, 96, 192)))
    assert measured == pytest.approx([1.0, 1.0], abs=0.1)


def test_dpm_adaptive_meets_its_tolerance() -> None:
    """The tolerance is for one step, relative; over the run the error stays of its size."""
    denoise, x = mixture(), points(TOP)
    exact = denoise(solve(denoise, x, TOP, BOTTOM), BOTTOM)
    previous = math.inf
    for tolerance in (0.05, 0.005, 0.0005):
        levels, precision = [TOP, BOTTOM, 0.0], {"rtol": tolerance, "atol": tolerance / 10}
        result = last(sample_dpm_adaptive(denoise, x, levels, noise=silent, **precision))
        error = float((result - exact).norm() / exact.norm())
        assert error < min(2 * tolerance, 0.5 * previous)
        previous = error


@pytest.mark.parametrize("sigmas", [[TOP, 3.0, BOTTOM, 0.0], [1.0, 0.95, 0.0]])
def test_dpm_adaptive_goes_down_to_its_last_level(sigmas: list[float]) -> None:
    steps = sample_dpm_adaptive(mixture(), points(sigmas[0]), sigmas, noise=silent)
    *_, before_last, final = [sigma for sigma, _, _ in steps]
    assert before_last == pytest.approx(sigmas[-2], rel=2e-5)
    assert final == 0.0


def doubled(sigma: float) -> float:
    """The drift of the reverse SDE with eta = 1 is twice the slope of the ODE."""
    return 2.0


def er_rate(sigma: float) -> float:
    """d log phi / d log sigma for ER-SDE's phi(sigma) = sigma (exp(sigma^0.3) + 10)."""
    growth = math.exp(sigma**0.3)
    return 1.0 + 0.3 * sigma**0.3 * growth / (growth + 10.0)


@pytest.mark.parametrize(
    ("sampler", "eta"),
    [
        (sample_dpm2, 0.0),
        (sample_dpm2, 1.0),
        (sample_dpmpp_2s_ancestral, 0.0),
        (sample_dpmpp_2s_ancestral, 1.0),
        (sample_dpmpp_sde, 0.0),
    ],
)
def test_two_stage_solvers_ask_at_the_middle_in_log_sigma(
    sampler: Callable[..., Steps], eta: float
) -> None:
    """Any middle gives order 2; the published methods take this one, of sigma and sigma_down."""
    asked: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return x

    last(sampler(denoise, points(TOP), [9.0, 4.0, 0.0], noise=silent, eta=eta))
    down = 4.0 if eta == 0.0 else 4.0**2 / 9.0
    assert asked == pytest.approx([9.0, math.sqrt(9.0 * down), 4.0])


# Ancestral samplers solve an ODE to below the next level: of order 2 in that, not in the drift.
SDE_DRIFTS: dict[str, tuple[Callable[..., Steps], Callable[[float], float], float]] = {
    "ddpm": (sample_euler_ancestral, doubled, 1.0),
    "dpm2_a": (partial(sample_dpm2, eta=1.0), doubled, 1.1),
    "dpmpp_2s_a": (sample_dpmpp_2s_ancestral, doubled, 1.0),
    "dpmpp_sde": (sample_dpmpp_sde, doubled, 2.0),
    "dpmpp_2m_sde": (sample_dpmpp_2m_sde, doubled, 2.0),
    "sa_solver": (sample_sa_solver, doubled, 2.1),
    "er_sde order=1": (partial(sample_er_sde, order=1), er_rate, 1.0),
    "er_sde order=2": (partial(sample_er_sde, order=2), er_rate, 2.0),
}


@pytest.mark.parametrize("name", SDE_DRIFTS)
def test_order_of_the_drift(name: str) -> None:
    sampler, rate, order = SDE_DRIFTS[name]
    measured = slopes(errors(sampler, (48, 96, 192), rate))
    assert measured == pytest.approx([order, order], abs=0.2)


@pytest.mark.parametrize(
    ("name", "sampler", "rate"),
    [("dpmpp_3m_sde", sample_dpmpp_3m_sde, doubled), ("er_sde", sample_er_sde, er_rate)],
    ids=["dpmpp_3m_sde", "er_sde"],
)
def test_the_registry_claims_the_measured_order(
    name: SamplerName, sampler: Callable[..., Steps], rate: Callable[[float], float]
) -> None:
    """A solver with a third-order term is of order 3 only if all its terms have the right size."""
    measured = slopes(errors(sampler, (24, 48, 96), rate))
    assert min(measured) > SAMPLERS[name].order - 0.25


def increments(
    sampler: Callable[..., Steps], denoise: Denoise, sigmas: Sequence[float]
) -> list[tuple[float, float]]:
    """(state before, state after) of every step, for a single number."""
    start = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    states = [float(x) for _, x, _ in sampler(denoise, start, sigmas, noise=silent)]
    return list(pairwise([float(start), *states]))


CUBIC = (0.7, -0.4, 0.3, -0.2)


def cubic(u: float, degree: int = 3) -> float:
    return sum(c * u**k for k, c in enumerate(CUBIC[: degree + 1]))


def integral(function: Callable[[float], float], start: float, end: float) -> float:
    """Gauss-Legendre with 5 points on 20 pieces: exact to rounding for what is integrated here."""
    nodes = [
        0.0,
        math.sqrt(5 - 2 * math.sqrt(10 / 7)) / 3,
        math.sqrt(5 + 2 * math.sqrt(10 / 7)) / 3,
    ]
    weights = [128 / 225, (322 + 13 * math.sqrt(70)) / 900, (322 - 13 * math.sqrt(70)) / 900]
    total, width = 0.0, (end - start) / 20
    for piece in range(20):
        centre = start + (piece + 0.5) * width
        for node, weight in zip(nodes, weights, strict=True):
            for sign in (1.0,) if node == 0.0 else (1.0, -1.0):
                total += weight * function(centre + sign * node * width / 2) * width / 2
    return total


def eps_of_sigma(slope: Callable[[float], float]) -> Denoise:
    """A denoiser whose eps = (x - x0) / sigma depends on sigma only."""
    return lambda x, sigma: x - sigma * slope(sigma)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_integrates_polynomials_in_sigma_exactly(order: int) -> None:
    """Adams-Bashforth of order k, on unequal steps, once it has k slopes."""
    sigmas = log_uniform(10, 3.0, 0.1)
    slope = partial(cubic, degree=order - 1)
    moves = increments(partial(sample_lms, order=order), eps_of_sigma(slope), sigmas)
    for (start, end), (before, after) in list(zip(pairwise(sigmas), moves, strict=True))[
        order - 1 :
    ]:
        assert after - before == pytest.approx(integral(slope, start, end), abs=1e-12)


@pytest.mark.parametrize("sampler", [sample_ipndm, sample_plms])
def test_equal_steps_make_ipndm_and_plms_exact_for_cubics(sampler: Callable[..., Steps]) -> None:
    sigmas = linspace(3.0, 0.5, 11)
    moves = increments(sampler, eps_of_sigma(cubic), sigmas)
    for (start, end), (before, after) in list(zip(pairwise(sigmas), moves, strict=True))[3:]:
        assert after - before == pytest.approx(integral(cubic, start, end), abs=1e-12)


def test_the_first_step_of_plms_is_a_trapezoid() -> None:
    sigmas = linspace(3.0, 0.5, 11)
    slope = partial(cubic, degree=1)
    (before, after), *_ = increments(sample_plms, eps_of_sigma(slope), sigmas)
    assert after - before == pytest.approx(integral(slope, sigmas[0], sigmas[1]), abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_integrates_polynomials_in_log_sigma_exactly(order: int) -> None:
    """With 15 steps and more, so that no step is reduced to a lower order."""
    sigmas = log_uniform(16, 3.0, 0.1)

    def slope(sigma: float) -> float:
        return cubic(math.log(sigma), order - 1)

    moves = increments(partial(sample_deis, order=order), eps_of_sigma(slope), sigmas)
    for (start, end), (before, after) in list(zip(pairwise(sigmas), moves, strict=True))[
        order - 1 :
    ]:
        assert after - before == pytest.approx(integral(slope, start, end), abs=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_dpmpp_3m_sde_is_exact_for_x0_linear_in_log_sigma(eta: float) -> None:
    """x' = exp(-z) x + integral of the kernel times x0, with z = (1 + eta) h, from step 1 on."""
    sigmas = log_uniform(6, 3.0, 0.1)

    def clean(sigma: float) -> float:
        return 0.7 - 0.4 * math.log(sigma)

    sampler = partial(sample_dpmpp_3m_sde, eta=eta)
    moves = increments(sampler, lambda x, sigma: torch.full_like(x, clean(sigma)), sigmas)
    rate = 1.0 + eta
    for (start, end), (before, after) in list(zip(pairwise(sigmas), moves, strict=True))[1:]:
        forced = integral(lambda s, end=end: rate * (end / s) ** rate * clean(s) / s, end, start)
        assert after == pytest.approx((end / start) ** rate * before + forced, abs=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_er_sde_is_exact_for_x0_linear_in_sigma(order: int) -> None:
    """Up to its own quadrature, a midpoint rule of 200 cells."""
    sigmas = log_uniform(6, 3.0, 0.1)

    def clean(sigma: float) -> float:
        return 0.7 - 0.4 * sigma

    def phi(sigma: float) -> float:
        return sigma * (math.exp(sigma**0.3) + 10.0)

    sampler = partial(sample_er_sde, order=order)
    moves = increments(sampler, lambda x, sigma: torch.full_like(x, clean(sigma)), sigmas)
    for (start, end), (before, after) in list(zip(pairwise(sigmas), moves, strict=True))[1:]:
        forced = integral(
            lambda s, end=end: phi(end) / phi(s) * er_rate(s) / s * clean(s), end, start
        )
        assert after == pytest.approx(phi(end) / phi(start) * before + forced, abs=1e-5)


def test_er_sde_has_the_second_derivative_of_the_paper() -> None:
    """For x0 = c sigma^2 the integral is exact but for the first derivative, which the paper takes
    from the middle of the step before: 2 c sigma is off by c (sigma_before - sigma).
    """
    sigmas = log_uniform(6, 3.0, 0.1)

    def phi(sigma: float) -> float:
        return sigma * (math.exp(sigma**0.3) + 10.0)

    def forced(function: Callable[[float], float], start: float, end: float) -> float:
        return integral(lambda s: phi(end) / phi(s) * er_rate(s) / s * function(s), end, start)

    c = 0.3
    moves = increments(sample_er_sde, lambda x, s: torch.full_like(x, c * s * s), sigmas)
    for i in range(2, 6):
        past, start, end = sigmas[i - 1 : i + 2]
        before, after = moves[i]
        offset = c * (past - start) * forced(lambda s, start=start: s - start, start, end)
        expected = phi(end) / phi(start) * before + forced(lambda s: c * s * s, start, end)
        assert after == pytest.approx(expected + offset, abs=1e-5)


class Impulses:
    """A noise source whose every independent Gaussian is a unit vector along the batch.

    A sampler that is linear in x and noise then returns its coefficients, whose squares add up to
    the variance of its results. The first run, on zeros, records which noise is asked for; along a
    Brownian path the independent Gaussians are the increments between all points asked for.
    """

    def __init__(self, *, brownian: bool) -> None:
        self.brownian = brownian
        self.asked: list[tuple[float, float]] = []

    def record(self, sigma: float, sigma_next: float) -> float:
        self.asked.append((sigma, sigma_next))
        return 0.0

    def cells(self) -> list[tuple[float, float]]:
        if not self.brownian:
            return self.asked
        return list(pairwise(sorted({sigma**-2 for pair in self.asked for sigma in pair})))

    def source(self) -> Callable[[float, float], Tensor]:
        cells, draws = self.cells(), iter(range(len(self.asked)))

        def stream(sigma: float, sigma_next: float) -> Tensor:
            coefficients = torch.zeros(len(cells) + 1, 1, 1, 1, dtype=torch.float64)
            coefficients[1 + next(draws)] = 1.0
            return coefficients

        def path(sigma: float, sigma_next: float) -> Tensor:
            low, high = sorted((sigma**-2, sigma_next**-2))
            inside = [b - a if low <= a and b <= high else 0.0 for a, b in cells]
            shares = torch.tensor([0.0, *inside], dtype=torch.float64) / (high - low)
            return shares.sqrt().reshape(-1, 1, 1, 1)

        return path if self.brownian else stream


def exact_variance(
    sampler: Callable[..., Steps],
    denoise: Denoise,
    sigmas: Sequence[float],
    start: float,
    *,
    brownian: bool,
) -> float:
    """The variance of a linear sampler's results, from a start of that standard deviation."""
    impulses = Impulses(brownian=brownian)
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    last(sampler(denoise, zero, sigmas, noise=impulses.record))
    x = torch.zeros(len(impulses.cells()) + 1, 1, 1, 1, dtype=torch.float64)
    x[0] = start
    return float(last(sampler(denoise, x, sigmas, noise=impulses.source())).square().sum())


STD = 0.5
# Sampler, whether it follows a Brownian path, and the order in which its variance converges.
SDE_SOLVERS: dict[str, tuple[Callable[..., Steps], bool, float]] = {
    "ddpm": (sample_euler_ancestral, False, 1.0),
    "ddim eta=0.5": (partial(sample_euler_ancestral, eta=0.5), False, 1.0),
    "dpm2_a": (partial(sample_dpm2, eta=1.0), False, 2.0),
    "dpm2_a eta=0.5": (partial(sample_dpm2, eta=0.5), False, 2.0),
    "dpmpp_2s_a": (sample_dpmpp_2s_ancestral, False, 2.0),
    "dpmpp_sde": (sample_dpmpp_sde, True, 2.0),
    "dpmpp_sde eta=0.5": (partial(sample_dpmpp_sde, eta=0.5), True, 2.0),
    "dpmpp_sde independent": (sample_dpmpp_sde, False, 1.0),  # why it has a path
    "dpmpp_2m_sde": (sample_dpmpp_2m_sde, False, 2.0),
    "dpmpp_2m_sde eta=0.5": (partial(sample_dpmpp_2m_sde, eta=0.5), False, 2.0),
    "dpmpp_3m_sde": (sample_dpmpp_3m_sde, True, 2.0),
    "dpmpp_3m_sde eta=0.5": (partial(sample_dpmpp_3m_sde, eta=0.5), True, 2.0),
    "er_sde": (sample_er_sde, True, 2.0),
    "sa_solver": (sample_sa_solver, False, 2.2),
    "sa_solver interval": (partial(sample_sa_solver, stochastic_between=(0.3, 5.0)), False, 2.1),
    "restart": (sample_restart, False, 2.0),
    "heun churn": (partial(sample_heun, s_churn=5.0), False, 2.0),
    "euler churn": (partial(sample_euler, s_churn=5.0), False, 1.0),
}


@pytest.mark.parametrize("name", SDE_SOLVERS)
def test_samples_of_gaussian_data_have_its_variance(name: str) -> None:
    """The error falls with the order and goes to 0: a wrong noise formula would have a limit.

    Runs close with the posterior mean at sigma = 0.02, whose variance is smaller by a known factor.
    """
    sampler, brownian, order = SDE_SOLVERS[name]
    target = STD**4 / (STD**2 + BOTTOM**2)
    deviations = []
    for steps in (80, 160, 320):
        sigmas = [*log_uniform(steps, 20.0), 0.0]
        start = math.hypot(STD, sigmas[0])
        variance = exact_variance(sampler, gaussian(STD), sigmas, start, brownian=brownian)
        deviations.append(variance / target - 1.0)
    assert slopes(deviations) == pytest.approx([order, order], abs=0.25)
    assert abs(deviations[-1]) < (0.04 if order < 1.5 else 0.002)


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_lcm_is_exact_for_a_perfect_consistency_function(steps: int) -> None:
    """f(x, sigma) = x s / sqrt(s^2 + sigma^2) carries x along the ODE of N(0, s^2) to 0."""

    def consistency(x: Tensor, sigma: float) -> Tensor:
        return x * (STD / math.hypot(STD, sigma))

    sigmas = [*log_uniform(steps, 20.0)[:-1], 0.0]
    start = math.hypot(STD, sigmas[0])
    variance = exact_variance(sample_lcm, consistency, sigmas, start, brownian=False)
    assert variance == pytest.approx(STD**2, rel=1e-12)


STOCHASTIC = [name for name, spec in SAMPLERS.items() if spec.stochastic]


@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("schedule", ["karras", "trailing"])
def test_real_noise_gives_the_variance_it_should(name: SamplerName, schedule: str) -> None:
    """A plan's run over 16 384 pixels, against the variance computed for its noise levels.

    The estimate has a standard error of 1.1 %; four of them are allowed.
    """
    config = NoiseConfig(steps_offset=1)
    settings = Sampling(sampler=name, schedule=schedule, steps=12)
    plan = SamplingPlan.make(settings, config, NoiseSchedule.from_config(config))
    latents = plan.run(gaussian(STD), [1], (4, 64, 64), CPU)
    sampler = partial(plan.spec.fn, **plan.arguments)
    brownian = plan.spec.noise == "brownian"
    expected = exact_variance(sampler, gaussian(STD), plan.sigmas, plan.start, brownian=brownian)
    expected /= 1.0 + plan.sigmas[-1] ** 2
    assert float(latents.var()) == pytest.approx(expected, rel=4 * math.sqrt(2 / 16384))
    assert abs(float(latents.mean())) < 4 * math.sqrt(expected / 16384)


BROWNIAN = {
    "dpmpp_sde": sample_dpmpp_sde,
    "dpmpp_3m_sde": sample_dpmpp_3m_sde,
    "er_sde": sample_er_sde,
}


def refinements(sampler: Callable[..., Steps], noise: type) -> list[float]:
    """Distances between results with n and 2 n steps from one seed, for growing n."""
    shape = (2, 16, 16)
    x = 20.0 * StreamNoise([5], shape, CPU).draw().double()
    results = [
        last(sampler(mixture(), x, [*log_uniform(n, 20.0), 0.0], noise=noise([5], shape, CPU)))
        for n in (16, 32, 64, 128, 256)
    ]
    return [float((a - b).square().mean().sqrt()) for a, b in pairwise(results)]


@pytest.mark.parametrize("name", BROWNIAN)
def test_one_path_gives_one_picture(name: str) -> None:
    """More steps refine the same sample: distances halve or so. With fresh noise they do not."""
    distances = refinements(BROWNIAN[name], BrownianNoise)
    assert all(finer < 0.85 * coarser for coarser, finer in pairwise(distances))
    assert distances[-1] < 0.35 * distances[0]
    independent = refinements(BROWNIAN[name], StreamNoise)
    assert independent[-1] > 0.7 * independent[0]
