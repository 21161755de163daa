"""The sitting on one GPU: its order, its budget, and how it goes on after a pause."""

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("resvg_py", reason="drawing needs the extra 'storybook'")

from diffgen.cli.train import RECIPES
from diffgen.errors import UsageError
from diffgen.models.build import build_empty
from diffgen.models.clip import ClipTextModel
from diffgen.models.unet import UNet
from diffgen.models.vae import Autoencoder
from diffgen.train.recipe.read import read_recipe
from scripts.storybook.chain import SCENES, TRAININGS, Amount, Costs, full, sitting, trial
from scripts.storybook.draw import SHARD
from scripts.storybook.make import Step
from scripts.storybook.sitting import FEWEST, PAUSED, SPARE, Plan, fitted, main, run, table, until

NEVER = float("inf")
COSTS = Costs(
    dict.fromkeys(TRAININGS, 0.05), dict.fromkeys(TRAININGS, 10.0), 4.0, 657, 0.03, 0.01, 0.003
)
ASKED = {"budget": 30.0, "scenes": None, "trial": False, "own_art": True}


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.storybook.chain.cores", lambda: 16)


def steps_of(amount: Amount) -> list[Step]:
    return sitting(amount, COSTS, True, Path("art"))


def minutes_of(amount: Amount) -> float:
    return sum(step.minutes for step in steps_of(amount))


def test_each_step_finds_what_earlier_steps_made() -> None:
    made: list[Path] = []
    for step in steps_of(full()):
        if step.name in TRAININGS:
            recipe = read_recipe(RECIPES / f"{step.name}.toml")
            assert any(path.match(recipe.data.path) or path.is_relative_to(recipe.data.path)
                       for path in made)  # fmt: skip
            chosen = recipe.model
            vocabulary = None if chosen.tokenizer == "storybook" else chosen.tokenizer
            needed = filter(None, [chosen.base, chosen.autoencoder, vocabulary])
        else:
            needed = (word for word in step.command if word.startswith("runs/"))
        out = step.command[step.command.index("--out") + 1] if "--out" in step.command else ""
        for path in needed:
            assert path == out or any(p.is_relative_to(path) for p in made), (step.name, path)
        made += step.made


def test_every_recipe_for_a_gpu_is_run_in_turn() -> None:
    assert {path.stem for path in RECIPES.glob("storybook-gpu*.toml")} == set(TRAININGS)
    assert [s.name for s in steps_of(trial()) if s.name in TRAININGS] == list(TRAININGS)


def test_the_model_stays_below_forty_megabytes() -> None:
    vae, text, *_ = (read_recipe(RECIPES / f"{name}.toml").model for name in TRAININGS)
    parts = (
        build_empty(Autoencoder, vae.vae),
        build_empty(ClipTextModel, text.text),
        build_empty(UNet, text.unet),
    )
    count = sum(p.numel() for part in parts for p in part.parameters())
    assert 2 * count < 40e6  # bytes in fp16


def test_all_pictures_have_a_name_of_their_own() -> None:
    """Which are held out goes by name, and one run takes both folders."""
    squares, shapes = (step for step in steps_of(full()) if step.name in ("squares", "shapes"))
    names = [path.name for path in (*squares.made, *shapes.made)]
    assert len(set(names)) == len(names)
    assert sum(amount for amount in (full().squares, full().shapes)) == SCENES
    assert len(names) >= SCENES / SHARD


def test_a_budget_shortens_all_trainings_alike() -> None:
    whole = full()
    assert fitted(whole, COSTS, None) == whole
    assert fitted(whole, COSTS, 10 * minutes_of(whole)) == whole
    budget = 0.8 * minutes_of(whole)
    short = fitted(whole, COSTS, budget)
    shares = [short.steps[name] / whole.steps[name] for name in TRAININGS]
    assert max(shares) < 1
    assert max(shares) - min(shares) < 1e-3
    assert minutes_of(short) == pytest.approx(SPARE * budget, rel=0.01)
    assert replace(short, steps=whole.steps) == whole


def test_a_budget_counts_what_is_asked_for() -> None:
    whole, last = full(), TRAININGS[-1]
    kept = until(steps_of(whole), last)
    assert [step.name for step in kept][-1] == last
    short = fitted(whole, COSTS, 30, last)
    assert sum(step.minutes for step in until(steps_of(short), last)) <= 30
    assert short.steps["storybook-gpu"] > fitted(whole, COSTS, 30).steps["storybook-gpu"]
    with pytest.raises(UsageError, match="--until nothing: the steps are vocabulary, squares"):
        until(kept, "nothing")


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a budget of 2\.0 min is too small: .* for verifier"):
        fitted(full(), COSTS, 2)
    slow = replace(COSTS, step=dict.fromkeys(TRAININGS, 1e4))
    rest = sum(s.minutes for s in steps_of(full()) if s.name not in TRAININGS)
    assert set(fitted(full(), slow, rest + 60).steps.values()) == {FEWEST}


def test_each_process_draws_what_it_meets_once() -> None:
    few, many = COSTS.drawing(16), COSTS.drawing(160_000)
    assert few == pytest.approx(4 + 24 * 0.03 + 16 * 0.01)  # one shard is one process's
    assert many == pytest.approx(4 + 657 * 0.03 + 10_000 * 0.01)


def test_the_table_sums_up_what_is_left(tmp_path: Path) -> None:
    done = Step("a", (), (), 5.0, 1.0)
    left = Step("b", (), (tmp_path / "b",), 2.5, 0.5)
    lines = table([done, left], 30).splitlines()
    assert lines[0].endswith("a  done before")
    assert lines[-1] == "   2.5 min   0.50 GB in all, estimated, of a budget of 30 min"


def test_a_plan_is_kept_and_nothing_else_may_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Plan.read(ASKED) is None
    plan = Plan(ASKED, COSTS, trial())
    plan.save()
    assert Plan.read(ASKED) == plan
    assert Plan.read(dict.fromkeys(ASKED)) == plan
    with pytest.raises(UsageError, match=r"made with budget 30\.0, not 20\.0; drop that"):
        Plan.read(ASKED | {"budget": 20.0})


def writing(folder: Path, name: str, code: str = "pass", **options: object) -> Step:
    """A step that adds a letter to its file."""
    target = folder / name
    script = f"{code}; open({str(target)!r}, 'a').write('x')"
    return Step(name, (sys.executable, "-I", "-c", script), (target,), 0.1, **options)


def test_what_was_done_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = writing(tmp_path, "a"), writing(tmp_path, "b", "raise SystemExit(3)")
    assert run([first, second], NEVER) == 3
    assert capsys.readouterr().err == "2/2 b failed; the same command goes on from here\n"
    assert run([first, writing(tmp_path, "b")], NEVER) == 0
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "x"
    makes_nothing = replace(writing(tmp_path, "c"), made=(tmp_path / "d",))
    assert run([makes_nothing], NEVER) == 1


def test_a_pause_cuts_what_goes_on_and_spares_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.storybook.sitting.LETTING_GO", 0.0)
    saved = tmp_path / "saved"
    saves = (
        f"import signal, sys, time; signal.signal({int(signal.SIGTERM)}, "
        f"lambda *_: (open({str(saved)!r}, 'w'), sys.exit(143))); time.sleep(60)"
    )
    long = writing(tmp_path, "long", saves, goes_on=True)
    assert run([long], time.monotonic() + 1) == PAUSED
    assert saved.exists()
    assert "paused in 1/1 long; the same command goes on" in capsys.readouterr().out
    whole = replace(writing(tmp_path, "whole"), minutes=5.0)
    assert run([writing(tmp_path, "a"), whole], time.monotonic() + 30) == PAUSED
    assert "paused before 2/2 whole" in capsys.readouterr().out
    assert run([whole], time.monotonic() + 30) == 1
    assert "takes longer than --stop-after allows" in capsys.readouterr().err


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    step = Step("a", ("train",), (), 1, run=tmp_path)
    assert step.words == ("train",)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000010.pt").touch()
    assert step.words == ("train", "--resume")


@pytest.mark.parametrize("option", ["--budget", "--stop-after", "--scenes"])
def test_numbers_are_more_than_nothing(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert f"{option} must be more than 0" in capsys.readouterr().err
