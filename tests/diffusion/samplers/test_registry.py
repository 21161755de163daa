"""The rows of the registry tell the truth about their functions."""

import inspect
import re
from collections.abc import Callable

import pytest
import torch
from analytic import gaussian
from torch import Tensor

from diffgen.diffusion.samplers import SAMPLERS, SamplerSpec
from diffgen.diffusion.sampling import SamplingPlan, SamplingSettings
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.errors import UsageError
from diffgen.types import ScheduleConfig

CONFIG = ScheduleConfig()
SD = NoiseSchedule.from_config(CONFIG)


@pytest.fixture(params=SAMPLERS)
def spec(request: pytest.FixtureRequest) -> SamplerSpec:
    return SAMPLERS[request.param]


def plan_of(spec: SamplerSpec, steps: int, **options: float) -> SamplingPlan:
    settings = SamplingSettings(
        sampler=spec.name, steps=steps, schedule="karras", options=options or None
    )
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
    plan.spec.fn(denoise, x, plan.sigmas, noise=noise, **plan.arguments)
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


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
def test_evaluations_are_counted_whatever_the_noise(spec: SamplerSpec, eta: float) -> None:
    """eta above 1 may ask for more noise than a step has room for: it is refused, or counted."""
    if "eta" not in spec.options:
        return
    try:
        plan = plan_of(spec, 5, eta=eta)
    except UsageError:
        assert eta > 1.0
        return
    assert run(plan)[0] == plan.nfe
