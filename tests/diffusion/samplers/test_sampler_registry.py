"""The rows of the registry tell the truth about their functions."""

import inspect
import re
from collections.abc import Callable

import pytest
import torch
from analytic import gaussian
from torch import Tensor

from diffgen.diffusion.samplers import SAMPLERS
from diffgen.diffusion.samplers.second_order import restart_segment
from diffgen.diffusion.samplers.spec import SamplerSpec
from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import UsageError
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig

CONFIG = NoiseConfig()
SD = NoiseSchedule.from_config(CONFIG)


@pytest.fixture(params=SAMPLERS)
def spec(request: pytest.FixtureRequest) -> SamplerSpec:
    return SAMPLERS[request.param]


def plan_of(spec: SamplerSpec, steps: int, **options: float) -> SamplingPlan:
    settings = Sampling(sampler=spec.name, steps=steps, schedule="karras", **options)
    return SamplingPlan.make(settings, CONFIG, SD)


class Counter:
    """Calls of a function, counted."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: object) -> Tensor:
        self.calls += 1
        return self.function(*arguments)


def run(plan: SamplingPlan) -> tuple[int, int]:
    """Evaluations and noise draws of a run."""
    denoise = Counter(gaussian(0.6))
    noise = Counter(lambda sigma, sigma_next: torch.ones(1, 1, 2, 2))
    x = plan.start * torch.ones(1, 1, 2, 2)
    made = list(plan.spec.fn(denoise, x, plan.sigmas, noise=noise, **plan.arguments))
    assert plan.spec.steps(plan.sigmas) in (0, len(made))
    return denoise.calls, noise.calls


def test_rows_are_keyed_by_their_names() -> None:
    assert all(name == row.name for name, row in SAMPLERS.items())


def test_labels_are_unique() -> None:
    assert len({row.label for row in SAMPLERS.values()}) == len(SAMPLERS)


def test_the_registry_cannot_be_changed(spec: SamplerSpec) -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        SAMPLERS[spec.name] = spec  # type: ignore[index]


def test_a_paper_is_named(spec: SamplerSpec) -> None:
    assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", spec.paper) or spec.name == "lms"
    assert spec.order >= 1


def test_noise_is_drawn_by_stochastic_samplers_only(spec: SamplerSpec) -> None:
    _, draws = run(plan_of(spec, 12))
    assert (draws > 0) == (spec.stochastic and spec.name != "ddim")


def test_eta_0_draws_no_noise(spec: SamplerSpec) -> None:
    """TCD's eta is another quantity: the share of a step that is re-noised."""
    if "eta" not in spec.options:
        assert "eta" not in inspect.signature(spec.fn).parameters or spec.name in FIXED_ETA
        return
    _, draws = run(plan_of(spec, 12, eta=0.0))
    assert draws == 0


FIXED_ETA = {"ddpm", "dpm2"}  # rows whose eta is part of their name


def test_options_change_the_result(spec: SamplerSpec) -> None:
    for name, default in spec.options.items():
        results = []
        for value in (default, default / 2 + 0.25):
            plan = plan_of(spec, 8, **{name: value})
            results.append(plan.run(gaussian(0.6), [1], (4, 2, 2), torch.device("cpu")))
        assert not torch.equal(*results), name


def test_evaluations_per_step(spec: SamplerSpec) -> None:
    """The cost in the long run, by which samplers are compared; adaptive ones count tried steps."""
    if spec.nfe is None:
        evaluations, _ = run(plan_of(spec, 100))
        assert (evaluations - 1) % spec.evals_per_step == 0
        return
    sigmas = [plan_of(spec, steps).sigmas for steps in (200, 300)]
    growth = (spec.nfe(sigmas[1]) - spec.nfe(sigmas[0])) / 100
    restarts = 1.0 if spec.name == "restart" else 0.0  # two restarts of a quarter of the steps
    assert growth == pytest.approx(spec.evals_per_step + restarts, abs=0.05)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_evaluations_are_counted_whatever_the_noise(spec: SamplerSpec, eta: float) -> None:
    if "eta" in spec.options:
        plan = plan_of(spec, 5, eta=eta)
        assert run(plan)[0] == plan.nfe


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_eta_outside_its_range_is_refused(spec: SamplerSpec, eta: float) -> None:
    """More noise than a step has room for would also make the count of evaluations wrong."""
    if "eta" in spec.options:
        with pytest.raises(UsageError, match=f"eta must be from 0 to 1, got {eta}"):
            plan_of(spec, 5, eta=eta)


@pytest.mark.parametrize(
    "sigmas", [[14.6, 5.0, 1.5, 0.6, 0.2, 0.0], [1.2, 0.9, 0.5, 0.3, 0.1, 0.0]]
)
def test_a_restart_goes_up_from_its_bottom_but_not_above_the_start(sigmas: list[float]) -> None:
    """arXiv:2306.14878: the interval [0.1, 2]; here from the lowest level of the run inside it."""
    segment = restart_segment(sigmas)
    assert segment is not None
    after, levels, times = segment
    assert sigmas[after + 1] == levels[-1] == sigmas[-2]
    assert levels[0] == pytest.approx(min(2.0, sigmas[0]), rel=1e-12)
    assert levels == sorted(levels, reverse=True)
    assert len(levels) >= 3
    assert times == 1


@pytest.mark.parametrize(
    "sigmas",
    [
        [14.6, 3.0, 0.5, 0.0],  # three steps
        [14.6, 9.0, 5.0, 3.0, 1.5, 0.0],  # nothing below 1
        [0.09, 0.07, 0.05, 0.03, 0.0],  # all below 0.1
        [0.8, 0.09, 0.05, 0.03, 0.0],  # the only level inside is the start
    ],
)
def test_a_run_without_room_is_not_restarted(sigmas: list[float]) -> None:
    assert restart_segment(sigmas) is None
    row = SAMPLERS["restart"]
    assert row.nfe is not None
    assert row.nfe(sigmas) == 2 * (len(sigmas) - 1) - 1
