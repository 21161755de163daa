"""diffgen.train.draws: every slot of a step has randomness of its own, whoever computes it."""

import shutil

import pytest
import torch
from training import VAE, Listener, make_recipe

from diffgen.train import learner, run
from diffgen.train.draws import Draws

SPLITS = ((1, 1), (4, 1), (2, 2), (1, 4))  # batch size and accumulation


def test_draws_belong_to_slots_and_not_to_the_rows_of_a_batch():
    cpu = torch.device("cpu")
    both = Draws.of((0, 5), (3, 8), cpu).normal((2, 2))
    alone = Draws.of((0, 5), (8,), cpu).normal((2, 2))
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(alone, Draws.of((0, 6), (8,), cpu).normal((2, 2)))
    assert not torch.equal(alone, Draws.of((1, 5), (8,), cpu).normal((2, 2)))
    draws = Draws.of((0, 5), (3, 8), cpu)
    assert not torch.equal(draws.uniform(), draws.uniform())


def test_threads_draw_the_same_numbers(monkeypatch):
    cpu, shapes = torch.device("cpu"), ((2, 5), (3, 4, 8), ())
    drawn = []
    for few in (2**20, 0):
        monkeypatch.setattr("diffgen.train.draws.FEW", few)
        draws = Draws.of((1, 2), range(19), cpu)
        drawn.append([draws.normal(shape) for shape in shapes])
    for alone, together in zip(*drawn, strict=True):
        assert torch.equal(alone, together)


@pytest.fixture
def one_picture(squares, tmp_path):
    data = tmp_path / "one"
    data.mkdir()
    for suffix in ("png", "txt"):
        shutil.copy(squares / f"00.{suffix}", data)
    return data


@pytest.mark.parametrize("target", ["diffusion", "autoencoder", "distill"])
def test_copies_of_a_picture_are_other_examples(one_picture, sd1, tmp_path, target):
    """The same four wherever the step is cut, and not one of them four times."""
    changes = {
        "diffusion": {},
        "autoencoder": {
            "target": target,
            "model": {"vae": VAE},
            "autoencoder.patch": 8,
            "data.size": 12,
        },
        "distill": {
            "target": target,
            "model": {"base": str(sd1.folder)},
            "data.size": 32,
            "distill.guidance": [2.0, 8.0],
        },
    }[target]
    losses = []
    for batch, accumulate in SPLITS:
        split = {"run.batch_size": batch, "run.accumulate": accumulate, "run.steps": 2}
        fixed = {"data.validation": 0, "data.caption_dropout": 0.0, **split}
        listener = Listener()
        folder = tmp_path / f"{batch}x{accumulate}"
        recipe = make_recipe(one_picture, changes | fixed)
        run.train(recipe, folder, resume=False, reporter=listener)
        losses.append(listener.losses)
    alone, *shared = losses
    for other in shared:
        assert other == pytest.approx(shared[0], rel=1e-4)  # sums in another order
        assert all(abs(a - b) > 1e-3 * a for a, b in zip(alone, other, strict=True))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_looking_ahead_changes_no_number(squares, tmp_path, monkeypatch, accumulate):
    """A device that computes by itself gets the next inputs before it is asked for the losses."""
    losses = []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(learner, "BY_THEMSELVES", devices)
        listener, folder = Listener(), tmp_path / f"{len(devices)}"
        recipe = make_recipe(squares, {"run.steps": 5, "run.accumulate": accumulate})
        run.train(recipe, folder, resume=False, reporter=listener)
        losses.append(listener.losses)
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5
