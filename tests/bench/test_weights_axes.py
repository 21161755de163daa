"""Sweeps over what is loaded: models, LoRAs and number formats."""

import gc
import itertools
import json
import os
import shlex
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import make_lora
from sweep_examples import Quiet, mixture_subject
from test_sweep import make_sweep, measured

from diffgen.bench.drift import Drift
from diffgen.bench.request import SweepRequest
from diffgen.bench.result_files import read_results
from diffgen.bench.session import Session
from diffgen.bench.subject import Build
from diffgen.engine.engine import Engine
from diffgen.engine.model import Model
from diffgen.engine.request import GenerateRequest
from diffgen.errors import UsageError, WeightsError
from diffgen.types import LoraRef

ROOT = Path(__file__).parents[2]
SMALL = {
    "prompts": ("a red barn",),
    "seeds": (5,),
    "samplers": "ddim",
    "schedules": "default",
    "steps": "2",
    "reference": 4,
    "repeats": 1,
    "target_psnr": 1.0,
}


def strong_lora(path, model, seed):
    """A LoRA strong enough to be seen."""
    torch.manual_seed(seed)
    return make_lora(path, model, rank=4, share=0.05)


def measure(folder, request):
    session = Session(request)
    session.open(folder)
    session.measure(Quiet(), lambda calls: None)
    return session.results()


def pixels(image):
    return np.asarray(image.convert("RGB"), dtype=int)


@pytest.fixture(scope="module")
def lora(tmp_path_factory, sd1):
    return strong_lora(tmp_path_factory.mktemp("lora") / "Detail.safetensors", sd1.folder, 1)


@pytest.fixture(scope="module")
def request_of_both(sd1, lora):
    several = {"loras": ((), (LoraRef(lora, 0.8),)), "dtype": ("bf16", "fp32")}
    return SweepRequest(**SMALL, model=str(sd1.folder), several=several)


@pytest.fixture(scope="module")
def loaded():
    """Every engine that was loaded, as long as it lives."""
    return []


@pytest.fixture(scope="module")
def swept(tmp_path_factory, request_of_both, loaded):
    """The folder and the results of a sweep over LoRAs and number formats."""
    folder, load = tmp_path_factory.mktemp("weights") / "report", Build.load

    def watched(build):
        gc.collect()
        assert not [each for each in loaded if each() is not None], "two models in memory"
        engine = load(build)
        loaded.append(weakref.ref(engine.unet))
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Build, "load", watched)
        return folder, measure(folder, request_of_both)


def test_every_cell_is_what_generate_makes(swept, sd1, lora):
    folder, results = swept
    keys = [f"ddim-{results.cells[0].schedule}-2-lora_{name}" for name in ("none", "detail-0.8")]
    assert [cell.key for cell in results.cells] == [
        f"{key}-dtype_{dtype}" for key in keys for dtype in ("bf16", "fp32")
    ]
    request = GenerateRequest(prompts=("a red barn",), seed=5, sampler="ddim", steps=2)
    for cell in results.cells:
        loras = () if cell.at["lora"] == "none" else [LoraRef(lora, 0.8)]
        engine = Engine.load(sd1.folder, dtype=cell.at["dtype"], loras=loras)
        (made,) = engine.generate(request)
        with Image.open(folder / cell.picture) as image:
            assert np.array_equal(pixels(image), pixels(made.image)), cell.key


def test_a_format_is_held_against_fp32_and_a_lora_against_its_own(swept, tmp_path, sd1):
    results = swept[1]
    assert set(results.references) == {"lora_none", "lora_detail-0.8"}
    assert [cell.limit for cell in results.cells] == ["lora_none"] * 2 + ["lora_detail-0.8"] * 2
    alone = measure(tmp_path, SweepRequest(**SMALL, model=str(sd1.folder), dtype="fp32"))
    exact = replace(results.references["lora_none"], picture="", title="")
    assert exact == replace(alone.references[""], picture="", title="")
    assert results.cells[1].latent_rmse == alone.cells[0].latent_rmse
    assert results.machine.dtype == "bf16, fp32"


def test_one_model_at_a_time_is_in_memory(swept, loaded):
    # fp32 for the reference, then the two formats, without the LoRA and with it.
    assert len(loaded) == 6


def test_the_results_are_read_and_gone_on_with(swept, request_of_both, monkeypatch):
    folder, results = swept
    assert read_results(folder) == results
    assert SweepRequest.from_settings(results.settings).several == request_of_both.several
    monkeypatch.setattr(Build, "load", None)
    assert replace(measure(folder, request_of_both), created=results.created) == results


def test_another_value_is_added_and_another_file_is_not(swept, request_of_both, lora):
    folder, results = swept
    stacks = request_of_both.several["loras"]
    more = (*stacks, (LoraRef(lora, 0.5),))
    several = {**request_of_both.several, "loras": more}
    made = measure(folder, replace(request_of_both, several=several))
    assert [cell for cell in made.cells if cell.at["lora"] != "detail-0.5"] == [*results.cells]
    stat = lora.stat()
    os.utime(lora, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        with pytest.raises(UsageError, match=r"other settings \(lora detail-0.8 was \w+, now"):
            Session(request_of_both).open(folder)
    finally:
        os.utime(lora, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_lora_that_does_not_fit_is_refused_before_anything_is_measured(lora, sdxl):
    with pytest.raises(WeightsError, match=r"Detail\.safetensors"):
        Session(SweepRequest(**SMALL, model=str(sdxl.folder), loras=(LoraRef(lora),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"several": {"dtype": ("auto", "fp32")}}, "--dtype auto is one of the others"),
        ({"loras": (LoraRef(Path("a"), steps=(0.0, 0.5)),)}, "LoRAs of the whole run"),
        ({"several": {"loras": ((), (LoraRef(Path("a"), steps=(0.5, 1.0)),))}}, "of the whole run"),
    ],
)
def test_axes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        SweepRequest(prompts=("a",), **changes)


def test_models_keep_their_own_size_guidance_and_default(tmp_path, sd1, sdxl):
    models = (str(sd1.folder), str(sdxl.folder))
    request = SweepRequest(
        **SMALL | {"steps": SweepRequest.steps, "reference": 50}, several={"model": models}
    )
    session = Session(request)
    for model, point in zip(models, request.points(), strict=True):
        own = Model.open(model).plan(GenerateRequest(prompts=["x"]))
        steps = own.sampling.steps_run
        cells = {cell.plan.spec.name: cell for cell in session.task.cells if cell.point == point}
        mine = [cell for cell in session.task.cells if cell.point == point and cell.steps == steps]
        assert own.sampling in [cell.plan for cell in mine], cells
        assert session.task.plans[point].guidance_scale == own.guidance_scale
    settings = request.settings(session.task.plan)
    assert [settings[name] for name in ("guidance", "width", "height")] == [None] * 3
    assert SweepRequest.from_settings(settings) == request


def test_a_machine_that_changed_is_noticed_in_every_stage(tmp_path, monkeypatch):
    """What a later stage finds out holds for the stages before it."""
    ticks = itertools.count()  # a machine on which every run takes a second
    monkeypatch.setattr("diffgen.bench.measure._now", lambda device: float(next(ticks)))
    points = tuple((("model", name),) for name in ("a", "b"))
    first = make_sweep(tmp_path, "ddim,heun,euler", "20", points=points, repeats=2)
    runs = first.run()
    for _ in range(8):  # all of a, and a part of b
        next(runs)
    runs.close()
    rest = make_sweep(tmp_path, "ddim,heun,euler", "20", points=points, repeats=2)
    rest._clock = lambda cell: 10.0
    measured(rest)
    assert [drift.sitting for drift in rest.journal.drifts] == [0]
    assert rest.journal.outdated() == []
    again = {key for key, run in rest.journal.runs.items() if run.seconds == 10.0}
    assert {("ddim-exponential-20-model_a", 0), ("heun-exponential-20-model_a", 1)} <= again
    assert isinstance(rest.journal.drifts[0], Drift)


def test_stages_follow_one_another_and_only_unfinished_ones_are_opened(tmp_path):
    points = tuple((("model", m), ("dtype", d)) for m in "ab" for d in ("bf16", "fp32"))
    asked = []

    class Watched:
        def cell(self, point):
            asked.append(point)
            return mixture_subject()

        def reference(self, solution):
            return mixture_subject()

    sweep = make_sweep(tmp_path, "ddim,euler", "4", points=points, subjects=Watched())
    keys = [run.cell for run in sweep.run()]
    order = [key.partition("-model_")[2] for key in keys]
    assert order == [
        name
        for name in ("a-dtype_bf16", "a-dtype_fp32", "b-dtype_bf16", "b-dtype_fp32")
        for _ in range(4)
    ]
    assert list(dict.fromkeys(asked)) == list(points)
    assert [label for label in sweep.listener.labels if "1 of" in label or "ref" in label] == [
        "reference of model a",
        "model a, dtype bf16: round 1 of 2",
        "model a, dtype fp32: round 1 of 2",
        "reference of model b",
        "model b, dtype bf16: round 1 of 2",
        "model b, dtype fp32: round 1 of 2",
    ]
    asked.clear()
    more = (*points, (("model", "c"), ("dtype", "fp32")))
    measured(make_sweep(tmp_path, "ddim,euler", "4", points=more, subjects=Watched()))
    assert set(asked) == {more[-1]}


def test_a_process_compares_models_loras_and_formats(tmp_path, sd1, lora):
    """The command line from end to end: table, JSON, report, sheet; the advice is a command that works."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "diffgen"]
    asked = ["-o", "out", "--samplers", "ddim", "--schedules", "default", "--steps", "2,3"]
    asked += ["--seeds", "0", "--reference", "4", "--target-psnr", "1", "--repeats", "1"]
    asked += ["--models", f"{sd1.folder},storybook-turbo", "--dtype", "fp32,bf16", "-W", "64"]
    asked += ["-H", "64", "--guidance-interval", "0.3-5,all"]

    def run(*arguments):
        return subprocess.run(
            [*words, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    made = run("sample-steps", "a barn", *asked)
    assert made.returncode == 0, made.stderr
    results = read_results(tmp_path / "out")
    name = Path(sd1.folder).name.lower()
    assert {cell.at["model"] for cell in results.cells} == {name, "storybook-turbo"}
    assert len(results.cells) == 16
    assert len(results.advice) == 4
    for column in ("model", "interval", "dtype"):
        assert column in made.stdout.splitlines()[0]
    assert "agree to" in made.stdout
    assert "dB or more, in fp32" in made.stdout
    assert {"report.html", "sheet.png", "plots.svg"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {name, "storybook-turbo"}
    again = run("sample-steps", "a barn", *asked, "--json")
    assert "0 network evaluations to come" in again.stderr
    assert (
        json.loads(again.stdout)["cells"]
        == json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    )
    last = shlex.split(results.advice[-1].command)[1:]
    assert run(*last, "-o", "advice.png").returncode == 0
    with Image.open(tmp_path / "advice.png") as drawn:
        cell = next(c for c in results.cells if c.key == results.advice[-1].cell)
        with Image.open(tmp_path / "out" / cell.picture) as shown:
            assert np.array_equal(pixels(drawn), pixels(shown))
    gate = run(
        "sample-steps", "--compare", "out/results.json", "-o", "new", "--max-slower", "1000000%"
    )
    assert gate.returncode == 0, gate.stderr
    assert "none of 16 cells got slower or worse" in gate.stdout
