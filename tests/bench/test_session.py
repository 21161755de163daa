from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sweep_examples import Quiet

from diffgen.bench.request import SweepRequest
from diffgen.bench.result_files import read_results
from diffgen.bench.session import Session
from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError
from diffgen.settings.sampling import Sampling

PROMPTS = ("red barn at sunset", "a cat in the snow")
REQUEST = {
    "prompts": PROMPTS,
    "seeds": (5,),
    "samplers": "ddim,dpmpp_sde,lcm",
    "schedules": "default",
    "steps": "2",
    "guidance_scale": 3.0,
    "reference": 4,
    "repeats": 1,
    "target_psnr": 1.0,  # or the reference would take many more steps than 4
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sessions") / "report"


@pytest.fixture(scope="module")
def results(folder):
    session = Session(SweepRequest(**REQUEST))
    session.open(folder)
    announced = []
    session.measure(Quiet(), announced.append)
    assert announced[0] > 0
    return session.results()


def pixels(image):
    return np.asarray(image.convert("RGB"), dtype=int)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_sde", "lcm"])
def test_a_cell_s_picture_is_what_generate_makes(folder, results, sampler):
    cell = next(cell for cell in results.cells if cell.sampler == sampler)
    request = GenerateRequest(
        prompts=PROMPTS[:1], seed=5, sampler=sampler, steps=2, guidance_scale=3.0
    )
    (made,) = Engine.load().generate(request)
    with Image.open(folder / cell.picture) as image:
        assert np.array_equal(pixels(image), pixels(made.image))
    assert made.record["schedule"] == cell.schedule


def test_results_say_what_was_measured(folder, results):
    assert read_results(folder) == results
    assert results.model == "storybook"
    assert results.settings["prompts"] == list(PROMPTS)
    assert results.settings["guidance"] == 3.0
    assert (results.settings["width"], results.settings["baseline"]) == (256, "")
    assert results.machine.device.startswith("cpu (")
    assert results.machine.threads >= 1
    assert set(results.machine.versions) == {"python", "torch", "diffgen"}
    assert results.text_seconds > 0
    assert set(results.references) == {"", "dpmpp_sde"}
    assert {cell.key: cell.status for cell in results.cells} == {
        "ddim-trailing-2": "ok",
        "dpmpp_sde-trailing-2": "ok",
        "lcm-lcm-2": "no_limit",
    }
    for cell in results.cells:
        assert cell.settings["guidance"] == 3.0
        assert len(cell.seconds.repeats) == len(PROMPTS)
    assert results.recommendation is not None
    assert set(results.front) <= {"ddim-trailing-2", "dpmpp_sde-trailing-2"}


def test_a_finished_sweep_is_read_without_loading_the_model(folder, results, monkeypatch):
    monkeypatch.setattr(Engine, "load", None)
    session = Session(SweepRequest(**REQUEST))
    session.open(folder)
    announced = []
    session.measure(Quiet(), announced.append)
    again = session.results()
    assert announced == [0]
    assert replace(again, created=results.created) == results


def test_a_request_comes_back_from_its_settings(results):
    assert SweepRequest.from_settings(results.settings) == SweepRequest(
        **REQUEST, width=256, height=256
    )


def test_the_model_s_own_default_is_the_baseline():
    """What `generate` does without any option, in the default sweep."""
    session = Session(SweepRequest(prompts=("x",)))
    (made,) = [cell for cell in session.task.cells if cell.key == "dpmpp_2m-beta-10"]
    own = Model.open().plan(GenerateRequest(prompts=["x"])).sampling
    assert made.plan == own
    assert len({cell.key for cell in session.task.cells}) == len(session.task.cells) == 55


def test_a_film_has_one_frame_a_step(folder, results):
    session = Session(SweepRequest(**REQUEST))
    plan = session.plan_run(Sampling(sampler="ddim", steps=2))
    film = session.film(plan)
    assert film.name == "trajectory-ddim-trailing-2"
    assert list(film.sigmas) == list(plan.sigmas[:-1])
    assert len(film.frames) == 2
    # At its last step a run ends on its denoised estimate.
    with Image.open(folder / "cells" / "ddim-trailing-2.png") as image:
        assert np.array_equal(pixels(film.frames[-1]), pixels(image))


def test_weights_written_anew_are_other_conditions(folder, results, monkeypatch):
    monkeypatch.setattr("diffgen.bench.session._fingerprint", lambda model: "other")
    with pytest.raises(UsageError, match="other settings \\(weights was"):
        Session(SweepRequest(**REQUEST)).open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "no prompts"),
        ({"reference": 3}, "reference must be at least 4"),
        ({"reference": 10, "steps": "5-20:5"}, "more steps than the 20"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"seeds": ()}, "--seeds"),
        ({"seeds": (2**64,)}, "--seeds"),
        ({"target_psnr": 0.0}, "target psnr must be at least 0.01"),
        ({"budget_seconds": float("nan")}, "budget seconds must be a finite"),
        ({"steps": "0"}, "--steps must be 1 or more"),
        ({"nfe": ""}, "--nfe is an empty list"),
    ],
)
def test_requests_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        SweepRequest(**REQUEST | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nonsuch"}, "no model named"),
        ({"width": 63}, "width 63"),
        ({"steps": "1001", "reference": 2000}, "1001 steps"),
    ],
)
def test_requests_that_do_not_fit_the_model_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        Session(SweepRequest(**REQUEST | changes))


def test_settings_that_make_no_request_are_refused():
    with pytest.raises(UsageError, match="cannot be read"):
        SweepRequest.from_settings({"prompts": 7})


def test_the_model_can_be_told_what_generate_can(sd1):
    plain = Session(SweepRequest(prompts=("a",), model=str(sd1.folder)))
    told = Session(
        SweepRequest(
            prompts=("a",), model=str(sd1.folder), vae=str(sd1.folder / "vae"), prediction="v"
        )
    )
    assert told.opened.vae == sd1.folder / "vae"
    assert told.opened.checkpoint.config.schedule.prediction == "v"
    conditions = [session.task.conditions("weights") for session in (plain, told)]
    assert {name for name in conditions[0] if conditions[0][name] != conditions[1][name]} == {
        "prediction"
    }


SEVERAL = {"guidance_scale": (1.0, 4.0), "guidance_method": ("cfg", "apg"), "eta": (0.0, 1.0)}


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """The folder and the results of a sweep over guidance and eta."""
    folder = tmp_path_factory.mktemp("axes") / "report"
    changes = {"prompts": PROMPTS[:1], "samplers": "ddim", "several": SEVERAL}
    session = Session(SweepRequest(**{**REQUEST, "guidance_scale": None} | changes))
    session.open(folder)
    session.measure(Quiet(), lambda calls: None)
    return folder, session.results()


def test_cells_at_every_point_are_what_generate_makes(varied):
    folder, results = varied
    assert len(results.cells) == 8
    assert [cell.settings["guidance"] for cell in results.cells] == [1.0] * 4 + [4.0] * 4
    engine = Engine.load()
    for cell in results.cells:
        if cell.stochastic:  # shown along its Brownian path
            continue
        request = GenerateRequest(
            prompts=PROMPTS[:1],
            seed=5,
            sampler="ddim",
            steps=2,
            guidance_scale=cell.at["guidance"],
            guidance_method=cell.at["method"],
            eta=0.0,
        )
        (made,) = engine.generate(request)
        with Image.open(folder / cell.picture) as image:
            assert np.array_equal(pixels(image), pixels(made.image)), cell.key


def test_every_solution_has_a_reference_a_front_and_an_answer(varied):
    folder, results = varied
    solutions = [f"guidance_{scale}-method_{name}" for scale in (1, 4) for name in ("cfg", "apg")]
    own = {f"ddim-eta_1-{name}" for name in solutions}
    assert set(results.references) == {*solutions, *own}
    assert {key.partition("-eta")[0].partition("2-")[2] for key in results.front} == set(solutions)
    heads = [advice.sentence.partition(":")[0] for advice in results.advice]
    assert heads == [
        f"guidance {scale}, method {name}" for scale in (1, 4) for name in ("cfg", "apg")
    ]
    assert read_results(folder) == results


def test_what_fast_leaves_out_is_part_of_a_cell_s_distance(tmp_path):
    """Both are held against one exact reference, also where fast alone is measured."""
    changes = {"prompts": PROMPTS[:1], "samplers": "ddim", "steps": "8", "reference": 12}
    made = {}
    for name, asked in [("both", {"several": {"fast": (False, True)}}), ("one", {"fast": True})]:
        session = Session(SweepRequest(**REQUEST | changes | asked))
        session.open(tmp_path / name)
        session.measure(Quiet(), lambda calls: None)
        made[name] = session.results()
    exact, fast = made["both"].cells
    (alone,) = made["one"].cells
    assert (exact.at, fast.at, alone.at) == ({"fast": False}, {"fast": True}, {})
    assert fast.latent_rmse.values == alone.latent_rmse.values != exact.latent_rmse.values
    assert set(made["both"].references) == {""}
    assert made["both"].references == made["one"].references
    assert "--fast" in made["one"].recommendation.command
    request = GenerateRequest(
        prompts=PROMPTS[:1], seed=5, sampler="ddim", steps=8, guidance_scale=3.0, fast=True
    )
    (picture,) = Engine.load().generate(request)
    with Image.open(tmp_path / "both" / fast.picture) as image:
        assert np.array_equal(pixels(image), pixels(picture.image))


def test_a_request_with_axes_comes_back_from_its_settings(varied):
    settings = varied[1].settings
    assert settings["guidance"] == [1.0, 4.0]
    assert SweepRequest.from_settings(settings).several == SEVERAL
    assert SweepRequest.from_settings(settings, {"guidance_scale": 3.0}).several == {
        name: SEVERAL[name] for name in ("guidance_method", "eta")
    }


def test_a_sweep_with_axes_takes_further_values_and_no_single_one(varied, tmp_path):
    def conditions(**several):
        changes = {"prompts": PROMPTS[:1], "guidance_scale": several.pop("guidance_scale", None)}
        session = Session(SweepRequest(**REQUEST | changes, several=several))
        return session.task.conditions("weights")

    both = conditions(guidance_rescale=(0.0, 0.7))
    assert both == conditions(guidance_rescale=(0.0, 0.5, 0.7))
    assert both != conditions()


def test_what_guides_is_a_condition():
    """Runs of another guidance would be mixed into one table."""
    own = Session(SweepRequest(prompts=("a",))).task.conditions("weights")
    for name, value in [("guidance_rescale", 0.7), ("guidance_method", "apg"), ("eta", 0.5)]:
        other = Session(SweepRequest(prompts=("a",), **{name: value})).task.conditions("weights")
        assert {key for key in own if own[key] != other[key]} == {name}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": 1.0, "samplers": "heun,unipc"}, "none of the samplers heun,unipc has an eta"),
        ({"several": {"eta": (0.0, 1.0)}, "samplers": "heun"}, "none of the samplers heun has"),
        ({"several": {"guidance_rescale": (0.0, 2.0)}}, "must be from 0 to 1, got 2"),
        ({"guidance_method": "cfg++"}, "scales of cfg.. go by the steps"),
        ({"several": {"guidance_method": ("cfg", "cfg++")}}, "scales of cfg.. go by the steps"),
    ],
)
def test_axes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        SweepRequest(prompts=("a",), **changes)


def test_the_default_sweep_is_what_it_always_was():
    session = Session(SweepRequest(prompts=("x",)))
    schedules = {"ddim": "trailing", "dpmpp_2m": "beta", "unipc": "trailing"}
    keys = {
        f"{sampler}-{schedule}-{steps}"
        for sampler, own in schedules.items()
        for schedule in (own, "karras", "beta", "ays")
        for steps in (5, 7, 10, 14, 20)
    }
    assert {cell.key for cell in session.task.cells} == keys
    assert {cell.point for cell in session.task.cells} == {()}


def test_the_default_is_measured_at_every_point():
    session = Session(SweepRequest(prompts=("x",), several={"guidance_scale": (3.0, 5.0)}))
    assert len(session.task.cells) == 2 * 55
    keys = {cell.key for cell in session.task.cells}
    assert {"dpmpp_2m-beta-10-guidance_3", "dpmpp_2m-beta-10-guidance_5"} <= keys
