"""diffgen.weights.noise: what files and users say of a model's noise, and how it is then sampled."""

import pytest

from diffgen.diffusion.sampling import SamplingPlan
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.settings.sampling import Sampling
from diffgen.types import NoiseConfig
from diffgen.weights.noise import with_noise

PLAIN = NoiseConfig(sampler="plms", spacing="leading", steps_offset=1, unsupported="for a reason")


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_zero_terminal_snr_begins_at_the_last_timestep(sampler):
    told = with_noise(PLAIN, {"zero_snr": True})
    schedule = NoiseSchedule.from_config(told)
    plan = SamplingPlan.make(Sampling(sampler=sampler, steps=7), told, schedule)
    assert schedule.sigma_to_t(plan.sigmas[0]) == 999.0
    assert plan.sigmas[0] == schedule.sigma_max


def test_a_spacing_that_was_chosen_stays():
    karras = NoiseConfig(spacing="karras")
    assert with_noise(karras, {"zero_snr": True}).spacing == "karras"
    assert with_noise(PLAIN, {"zero_snr": False}) == PLAIN
    assert with_noise(PLAIN, {}) == PLAIN


@pytest.mark.parametrize(
    ("prediction", "sampler", "spacing"),
    [("flow", "euler", "linspace"), ("edm", "dpmpp_2m", "karras"), ("edm_v", "euler", "karras")],
)
def test_other_noise_is_sampled_in_its_own_way(prediction, sampler, spacing):
    told = with_noise(PLAIN, {"prediction": prediction, "shift": 2.0, "clip_skip": 2})
    assert (told.sampler, told.spacing, told.shift) == (sampler, spacing, 2.0)
    assert told.unsupported is None  # the scheduler that the file names is not taken


def test_v_is_sampled_as_before():
    told = with_noise(PLAIN, {"prediction": "v"})
    assert (told.prediction, told.sampler, told.spacing) == ("v", "plms", "leading")
    assert told.unsupported == "for a reason"
