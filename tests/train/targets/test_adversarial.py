import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training import VAE, Listener, make_recipe

from diffgen.errors import ConfigError
from diffgen.train import run
from diffgen.train.dist import World
from diffgen.train.metrics import read_rows
from diffgen.train.recipe.recipe import AutoencoderRecipe
from diffgen.train.targets.adversarial import (
    Adversary,
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
)

BASE = {
    "target": "autoencoder",
    "model": {"vae": VAE},
    "data.size": 24,
    "run.batch_size": 2,
    "run.steps": 6,
    "run.validate_every": 3,
}
LATE = {**BASE, "autoencoder.adversarial": 0.5, "autoencoder.adversarial_start": 3}
ALONE = World(0, 1, torch.device("cpu"))


def train(squares, folder, changes, *, resume=False, fail_at=0):
    recipe = make_recipe(squares, changes)
    run.train(recipe, folder, resume=resume, reporter=Listener(fail_at))
    return [row for row in read_rows(folder / "metrics.jsonl") if "loss" in row]


def state_in(folder, step):
    return torch.load(folder / "checkpoints" / f"step-{step:08}.pt", weights_only=True)


@pytest.fixture(scope="module")
def late(squares, tmp_path_factory):
    """A run whose discriminator joins in the fourth of six steps."""
    folder = tmp_path_factory.mktemp("late")
    return folder, train(squares, folder, {**LATE, "run.keep_every": 2})


def test_the_field_of_view_is_70_pixels():
    pixels = torch.randn(1, 3, 128, 128, requires_grad=True)
    # Without norms, which see everything, and with ReLUs' zero slopes out of the way.
    layers = [m for m in PatchDiscriminator().layers if not isinstance(m, nn.GroupNorm)]
    scores = nn.Sequential(*layers)(pixels)
    assert scores.shape == (1, 1, 14, 14)
    scores[0, 0, 7, 7].backward()
    seen = pixels.grad[0].abs().sum(0)
    assert [int((seen.sum(dim) > 0).sum()) for dim in (0, 1)] == [70, 70]


def test_the_smallest_picture_it_can_judge():
    assert PatchDiscriminator()(torch.zeros(2, 3, 24, 24)).shape == (2, 1, 1, 1)


def test_hinges_by_hand():
    loss = hinge_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0, 1.0]))
    assert loss.item() == pytest.approx(0.5 * (0.5 / 2 + (1.0 + 2.0) / 3))


def test_the_adaptive_weight_equals_gradients():
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 3), torch.randn(5, 3)
    output = layer(x)
    first, second = (
        torch.autograd.grad(loss, layer.weight, retain_graph=True)[0]
        for loss in (7.0 * output.square().mean(), -output.sin().mean())
    )
    # DELTA is about 1e-6 of the gradient.
    torch.testing.assert_close(
        (adaptive_weight(first, second) * second).norm(), first.norm(), rtol=1e-4, atol=0
    )
    assert adaptive_weight(first, 0.0 * second) == 1e4


def test_each_side_learns_from_its_own_loss_only():
    torch.manual_seed(0)
    adversary = Adversary(AutoencoderRecipe(adversarial=1.0), ALONE.device)
    last = nn.Conv2d(3, 3, 1)
    pixels = torch.randn(2, 3, 24, 24)
    output = last(pixels)
    loss = F.mse_loss(output, pixels)
    adversary.begin(0, ALONE)
    weights = [p for p in adversary.discriminator.parameters() if p.dim() == 4]
    before = [p.detach().clone() for p in weights]
    (loss + adversary.term(loss, output, pixels, last.weight)).backward()
    assert all(p.grad is None for p in adversary.discriminator.parameters())
    gradient = last.weight.grad.clone()
    adversary.learn(1e-3)
    assert torch.equal(last.weight.grad, gradient)
    assert all(not torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def test_the_discriminator_learns_to_tell():
    torch.manual_seed(0)
    adversary = Adversary(AutoencoderRecipe(adversarial=1.0), ALONE.device)
    last = nn.Conv2d(3, 3, 1).requires_grad_(True)
    real = torch.sign(torch.randn(4, 3, 24, 24))
    losses = []
    for step in range(12):
        adversary.begin(step, ALONE)
        output = last(0.2 * torch.randn(4, 3, 24, 24))
        adversary.term(F.mse_loss(output, real), output, real, last.weight)
        losses.append(adversary.learn(2e-4)["discriminator"])
    assert losses[0] > 0.8  # it begins at chance, 1
    assert losses[-1] < 0.3


def test_zero_weight_changes_nothing(squares, late, tmp_path):
    plain = train(squares, tmp_path / "plain", BASE)
    zero = {**BASE, "autoencoder.adversarial": 0.0, "autoencoder.adversarial_start": 2}
    rows = train(squares, tmp_path / "zero", zero)
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    assert "discriminator" not in rows[0]
    # Neither does a discriminator before its start, which comes after the third step.
    assert [row["loss"] for row in late[1]][:3] == [row["loss"] for row in plain][:3]
    assert late[1][3]["l1"] == plain[3]["l1"]
    assert late[1][4]["l1"] != plain[4]["l1"]


def test_it_takes_part_from_its_start_on(late):
    folder, rows = late
    assert [row["discriminator"] > 0 for row in rows] == [False] * 3 + [True] * 3
    assert [row["adversarial"] != 0 for row in rows] == [False] * 3 + [True] * 3
    first, second, third = (state_in(folder, step)["opponent"] for step in (2, 4, 6))
    assert first["optimizer"]["state"] == {}
    assert second["optimizer"]["state"].keys() == set(range(16))  # five convolutions, three norms
    name = "layers.0.weight"
    weights = [state["discriminator"][name] for state in (first, second, third)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_it_is_neither_averaged_nor_exported(late):
    folder, _ = late
    saved = state_in(folder, 6)
    assert not any("discriminator" in name for name in saved["ema"]["average"])
    assert not any("discriminator" in name for name in saved["module"])
    assert {path.name for path in (folder / "model" / "vae").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }


@pytest.mark.parametrize("died_at", [3, 5])
def test_a_run_that_died_goes_on_bit_for_bit(squares, late, tmp_path, died_at):
    folder, rows = late
    with pytest.raises(KeyboardInterrupt):
        train(squares, tmp_path, LATE, fail_at=died_at)
    again = {row["step"]: row for row in train(squares, tmp_path, LATE, resume=True)}
    for row in rows:
        for key in ("loss", "discriminator", "adversarial"):
            assert again[row["step"]][key] == row[key]
    first, second = (
        state_in(place, 6)["opponent"]["discriminator"] for place in (folder, tmp_path)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "changes", [{"run.precision": "bf16"}, {"run.gradient_checkpointing": True}]
)
def test_options_run(squares, tmp_path, changes):
    start = {"autoencoder.adversarial_start": 0, "run.accumulate": 2, "run.steps": 2}
    rows = train(squares, tmp_path, {**LATE, **start, **changes})
    assert rows[-1]["discriminator"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.size": 16}, "at least 24 pixels, not 16"),
        ({"data.size": 64, "autoencoder.patch": 16}, "at least 24 pixels, not 16"),
        ({"autoencoder.adversarial_start": 6}, "would start at step 6, after the last, 6"),
        ({"run.precision": "fp16"}, "fp16 cannot hold"),
        ({"run.compile": True}, r"run\.compile does not allow"),
        ({"run.parallel": "fsdp"}, 'use run.parallel = "ddp"'),
        ({"autoencoder": {"adversarial": 1.0, "l1": 0.0, "l2": 0.0, "edge": 0.0}}, "all 0"),
    ],
)
def test_what_cannot_work_is_refused(squares, changes, message):
    with pytest.raises(ConfigError, match=rf"autoencoder\.adversarial .*{message}"):
        make_recipe(squares, {**LATE, **changes})
