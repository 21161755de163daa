import json
import math
import random
import signal
import subprocess
from dataclasses import replace

import programs
import pytest
import torch
from programs import ROOT
from training import VAE, Listener, draw_squares, make_recipe, spoil

from diffgen.errors import ConfigError, DiffgenError, UsageError
from diffgen.pictures.opening import DAMAGED
from diffgen.train import run, state
from diffgen.train.data import loader
from diffgen.train.data.dataset import open_data
from diffgen.train.data.folders import NOT_READ, NOWHERE, RUNS
from diffgen.train.data.report import CUT, ENLARGED, FAILED
from diffgen.train.dist import World
from diffgen.train.loop import Trainer
from diffgen.train.recipe.tables import to_toml


def losses_in(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    changes = {"run.accumulate": 2, "data.flip": True, "data.crop": "random"}
    recipe = make_recipe(squares, changes)
    run.train(recipe, folder, resume=False, reporter=Listener())
    return recipe, folder


def test_a_run_leaves_all_it_should(whole):
    _, folder = whole
    assert sorted(losses_in(folder)) == list(range(1, 9))
    text = (folder / "metrics.jsonl").read_text()
    assert text.count("held_out_loss") == 2
    names = {path.name for path in (folder / "model").iterdir()}
    assert {"README.md", "loss.png", "model_index.json", "unet", "text_encoder"} <= names


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_that_died_goes_on_bit_for_bit(whole, tmp_path, seed):
    recipe, folder = whole
    died_at = random.Random(seed).randint(3, 8)
    with pytest.raises(KeyboardInterrupt):
        run.train(recipe, tmp_path, resume=False, reporter=Listener(fail_at=died_at))
    run.train(recipe, tmp_path, resume=True, reporter=Listener())
    assert losses_in(tmp_path) == losses_in(folder)
    saved = [
        torch.load(place / "checkpoints" / "step-00000008.pt", weights_only=True)
        for place in (tmp_path, folder)
    ]
    for part in ("module", "average"):
        first, second = ((s["ema"] if part == "average" else s)[part] for s in saved)
        assert all(torch.equal(first[name], second[name]) for name in second)


def start(recipe, folder, *options):
    file = folder.with_suffix(".toml")
    file.write_text(to_toml(recipe))
    words = ("train", str(file), "-o", str(folder), *options)
    return programs.start(*words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_for_step(process, step):
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError("the run ended before it should")


def test_kill_9_with_workers_and_resume(squares, whole, tmp_path):
    changes = {"run.accumulate": 2, "data.flip": True, "data.crop": "random", "data.workers": 2}
    recipe, folder = make_recipe(squares, changes), tmp_path / "run"
    with start(recipe, folder) as process:
        wait_for_step(process, 5)
        process.kill()
        process.communicate()
    with start(recipe, folder, "--resume") as again:
        out, err = again.communicate()
        assert again.returncode == 0, err
    assert out.strip() == str(folder / "model")
    assert losses_in(folder) == losses_in(whole[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_write_a_checkpoint(squares, tmp_path, number, code):
    recipe = make_recipe(squares, {"run.steps": 100_000, "run.checkpoint_every": 100_000})
    with start(recipe, tmp_path / "run") as process:
        wait_for_step(process, 3)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == code, err
    assert "--resume" in err
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


def test_a_loss_that_is_not_finite_stops_the_run(squares, tmp_path):
    recipe = make_recipe(squares, {"optimizer.lr": 1e30, "optimizer.warmup": 0})
    with pytest.raises(DiffgenError) as caught:
        run.train(recipe, tmp_path, resume=False, reporter=Listener())
    assert " at step " in str(caught.value)


def test_the_message_names_the_last_good_checkpoint(squares, tmp_path, monkeypatch):
    from diffgen.train.targets import objectives

    calls = []

    def poisoned(output, target):
        calls.append(0)
        error = (output - target).square().flatten(1).mean(dim=1)
        return error * float("nan") if len(calls) > 5 else error

    monkeypatch.setattr(objectives, "squared_error", poisoned)
    with pytest.raises(DiffgenError, match=r"loss is nan at step 5; .*step-00000004\.pt"):
        run.train(make_recipe(squares), tmp_path, resume=False, reporter=Listener())


def strict_rows(folder):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_step_that_fp16_skips_moves_nothing_and_is_counted(squares, tmp_path, kind):
    """A loss scale of 2^26 overflows in the first steps, and is halved until it does not."""
    changes = {"run.precision": "fp16", "run.steps": 12, "optimizer.kind": kind}
    recipe = make_recipe(squares, {**changes, "run.log_every": 4, "data.validation": 0})
    target = run.diffusion_target(recipe, torch.device("cpu"))
    world = World(0, 1, torch.device("cpu"))
    trainer = Trainer(recipe, target, run.open_data(recipe.data), world, tmp_path)
    trainer.learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26)
    followed, listener = [], Listener()
    trainer.learner.target = replace(target, stepped=lambda: followed.append(trainer.step))
    before = {n: t.clone() for n, t in trainer.learner.ema.average.items()}
    trainer.learner.learn(trainer.batches())
    assert trainer.learner.skipped == 1
    assert all(torch.equal(trainer.learner.ema.average[n], t) for n, t in before.items())
    assert all(torch.equal(p, before[n]) for n, p in target.module.named_parameters())
    trainer.train(listener, lambda: 0)
    assert 1 < trainer.learner.skipped < 12
    assert trainer.learner.ema.updates == len(followed) == 12 - trainer.learner.skipped
    rows = strict_rows(tmp_path)
    assert rows[-1]["skipped_steps"] == trainer.learner.skipped
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert "grad_norm" in rows[-1]
    assert [line for line in listener.lines if "whose fp16 gradients overflowed" in line]
    again = Trainer(recipe, target, run.open_data(recipe.data), world, tmp_path)
    again.restore(state.load_last(again.checkpoints))
    assert again.learner.skipped == trainer.learner.skipped


def test_gradients_that_no_scale_fits_stop_the_run(squares, tmp_path, monkeypatch):
    recipe = make_recipe(squares, {"run.precision": "fp16", "data.validation": 0})
    target = run.diffusion_target(recipe, torch.device("cpu"))
    world = World(0, 1, torch.device("cpu"))
    trainer = Trainer(recipe, target, run.open_data(recipe.data), world, tmp_path)
    trainer.learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-20)
    next(iter(target.module.parameters())).register_hook(lambda grad: grad * math.inf)
    batches = trainer.batches()
    trainer.learner.learn(batches)
    with pytest.raises(DiffgenError, match="whatever it is scaled by at step 2; no checkpoint"):
        trainer.learner.learn(batches)


def test_held_out_pictures_are_decoded_when_they_are_needed(squares, tmp_path, monkeypatch):
    decoded = []
    real = loader.decode
    monkeypatch.setattr(
        loader,
        "decode",
        lambda entry, *a, **k: (decoded.append(entry.name), real(entry, *a, **k))[1],
    )
    recipe = make_recipe(squares, {"data.validation": 7})
    target = run.diffusion_target(recipe, torch.device("cpu"))
    data = run.open_data(recipe.data)
    trainer = Trainer(recipe, target, data, World(0, 1, torch.device("cpu")), tmp_path)
    assert not decoded
    batches = trainer.data.validation(2, rank=0, world=1)
    next(batches)
    assert len(decoded) == 2
    shares = [
        [index for batch in data.validation(2, rank=rank, world=3) for index in batch.indices]
        for rank in range(3)
    ]
    assert [len(share) for share in shares] == [3, 2, 2]
    assert len({index for share in shares for index in share}) == 7


def test_a_held_out_part_that_is_all_damaged_is_not_measured(squares, tmp_path):
    data = draw_squares(tmp_path / "squares")
    recipe = make_recipe(data, {"run.steps": 4})
    for index in next(open_data(recipe.data).validation(4)).indices:
        spoil(data / f"{index:02}.png")
    run.train(recipe, tmp_path / "run", resume=False, reporter=Listener())
    assert "held_out_loss" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_it_learns(squares, tmp_path):
    changes = {"run.steps": 120, "run.log_every": 20, "optimizer.lr": 1e-2, "run.batch_size": 4}
    run.train(make_recipe(squares, changes), tmp_path, resume=False, reporter=Listener())
    losses = losses_in(tmp_path)
    assert losses[120] < 0.75 * losses[20]  # it came to 0.64


def test_a_resumed_run_may_be_longer_or_shorter(squares, tmp_path):
    run.train(make_recipe(squares, {"run.steps": 2}), tmp_path, resume=False, reporter=Listener())
    longer, shorter = Listener(), Listener()
    run.train(make_recipe(squares, {"run.steps": 4}), tmp_path, resume=True, reporter=longer)
    run.train(make_recipe(squares, {"run.steps": 3}), tmp_path, resume=True, reporter=shorter)
    assert (len(longer.losses), len(shorter.losses)) == (2, 0)
    assert (tmp_path / "model" / "README.md").is_file()


def test_a_used_folder_needs_resume(squares, whole):
    recipe, folder = whole
    with pytest.raises(UsageError, match="add --resume"):
        run.train(recipe, folder, resume=False, reporter=Listener())
    changes = {"run.accumulate": 2, "data.flip": False, "data.crop": "random"}
    with pytest.raises(ConfigError, match=r"data\.flip: true -> false"):
        run.train(make_recipe(squares, changes), folder, resume=True, reporter=Listener())


@pytest.mark.parametrize(
    "changes",
    [
        {"objective.loss": "huber", "objective.noise_offset": 0.1, "objective.min_snr_gamma": 5.0},
        {"objective.timesteps": "logit_normal", "model.train_text_encoder": False},
        {"run.gradient_checkpointing": True, "run.channels_last": True},
        {"run.precision": "bf16"},
    ],
)
def test_options_run(squares, tmp_path, changes):
    listener = Listener()
    recipe = make_recipe(squares, {**changes, "run.steps": 2, "data.validation": 0})
    run.train(recipe, tmp_path, resume=False, reporter=listener)
    assert len(listener.losses) == 2


def test_recomputed_activations_change_nothing(squares, tmp_path):
    plain, lean = Listener(), Listener()
    run.train(make_recipe(squares), tmp_path / "a", resume=False, reporter=plain)
    recipe = make_recipe(squares, {"run.gradient_checkpointing": True})
    run.train(recipe, tmp_path / "b", resume=False, reporter=lean)
    assert plain.losses == pytest.approx(lean.losses, rel=1e-5)  # other orders of summation


def test_latents_are_cached(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ENCODING_EVERY", 0.0)
    vae = make_recipe(squares, {"target": "autoencoder", "model": {"vae": VAE}, "run.steps": 2})
    run.train(vae, tmp_path / "vae", resume=False, reporter=Listener())
    changes = {
        "model.autoencoder": str(tmp_path / "vae" / "model"),
        "model.unet.in_channels": 4,
        "model.unet.out_channels": 4,
        "data.cache": str(tmp_path / "cache"),
        "run.steps": 2,
    }
    (trial,) = [
        line
        for line in run.dry_run(make_recipe(squares, changes), tmp_path / "run")
        if line.startswith("latent cache: 0 of 16 pictures")
    ]
    assert "a run encodes the others first" in trial
    assert not list((tmp_path / "cache").rglob("*.latent"))
    first, second = Listener(), Listener()
    run.train(make_recipe(squares, changes), tmp_path / "a", resume=False, reporter=first)
    assert len(list((tmp_path / "cache").rglob("*.latent"))) == 16
    run.train(make_recipe(squares, changes), tmp_path / "b", resume=False, reporter=second)
    assert first.losses == second.losses
    assert "encoded 16 of 16 pictures" in first.lines
    assert not [line for line in second.lines if line.startswith("encoded")]


def test_dry_run_writes_nothing(squares, tmp_path):
    lines = run.dry_run(make_recipe(squares), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    text = "\n".join(lines)
    assert "12 pictures to learn from, 4 held out" in text
    assert "8 steps of 3 pictures: 2.0 epochs" in text
    assert "memory: about" in text


def test_a_run_and_its_card_say_what_is_not_learned_as_it_is(tmp_path):
    data = draw_squares(tmp_path / "squares")
    (data / "00.png").write_bytes(b"")
    (data / "01.txt").write_text("a red square " * 30)
    (data / "d|e.psd").write_bytes(b"8BPS")
    (data / "gone.png").symlink_to("nowhere.png")
    changes = {"data.validation": 0, "data.size": 16, "run.steps": 6, "optimizer.warmup": 6}
    spoil(data / "05.png")
    listener = Listener()
    run.train(make_recipe(data, changes), tmp_path / "run", resume=False, reporter=listener)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    for name, kind in {
        "00.png": DAMAGED,
        "01.png": CUT,
        "d|e.psd": NOT_READ,
        "gone.png": NOWHERE,
    }.items():
        assert f"{kind}: 1 ({name})" in listener.lines
        shown = name.replace("|", "\\|")
        assert f"| {kind} | 1 ({shown}) |" in card
    assert f"| {FAILED} | 1 (05.png) |" in card
    assert f"| data | {data}: 14 pictures, hash " in card  # without the two damaged ones
    assert any(line.startswith(f"{ENLARGED}: 14 (01.png, ") for line in listener.lines)
    assert any(line.startswith("optimizer.warmup, 6 steps, is not over") for line in listener.lines)


def test_a_run_among_its_pictures_goes_on(tmp_path):
    """Its own samples are pictures, and none to learn from."""
    data = draw_squares(tmp_path / "squares")
    folder, changes = data / "style.run", {"samples.every": 2, "data.validation": 0}
    for steps in (4, 6):
        recipe = make_recipe(data, {**changes, "run.steps": steps})
        listener = Listener()
        run.train(recipe, folder, resume=steps > 4, reporter=listener)
    assert list(folder.rglob("*.png"))
    assert listener.lines[0].startswith("data: 16 pictures")
    assert f"{RUNS}: 1 (style.run)" in listener.lines
