import resource
import signal

import pytest
import torch
from training import make_recipe

from diffgen.errors import ConfigError, OutputError, UsageError, WeightsError
from diffgen.train import state


def save(folder, step, more):
    return state.save(folder, step, {**dict.fromkeys(state.WRITTEN), "step": step, **more})


def test_the_newest_is_loaded_and_old_ones_go(tmp_path):
    for step in range(1, 9):
        save(tmp_path, step, {})
        state.prune(tmp_path, keep_last=2, keep_every=3)
    assert list(state.checkpoints(tmp_path)) == [3, 6, 7, 8]
    assert state.load_last(tmp_path)["step"] == 8
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint to resume from"):
        state.load_last(tmp_path)


@pytest.mark.parametrize("damage", [b"PK\x03\x04", b"", {"x": torch.ones(2)}, torch.ones(2)])
def test_a_damaged_checkpoint_is_named_and_the_advice_can_be_followed(tmp_path, damage):
    path = tmp_path / "step-00000003.pt"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        torch.save(damage, path)
    with pytest.raises(WeightsError, match=r"step-00000003\.pt is .*; there is no other"):
        state.load_last(tmp_path)
    good = save(tmp_path, 2, {"x": torch.ones(3)})
    with pytest.raises(WeightsError, match=f"delete it to resume from the one before, {good.name}"):
        state.load_last(tmp_path)
    path.unlink()
    assert torch.equal(state.load_last(tmp_path)["x"], torch.ones(3))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """The kernel refuses to write past a limit, as a full disk does."""
    good = save(tmp_path, 1, {"x": torch.ones(3)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OutputError) as caught:
            state.save(tmp_path, 2, {"x": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "File too large" in str(caught.value)
    assert str(good) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "go on with --resume" in str(caught.value)
    assert list(tmp_path.iterdir()) == [good]
    assert torch.equal(state.load_last(tmp_path)["x"], torch.ones(3))


def test_a_first_checkpoint_that_fails_advises_no_resume(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(OutputError) as caught:
        state.save(tmp_path / "checkpoints", 2, {})
    assert "there is no checkpoint yet, so start it again" in str(caught.value)


def test_random_numbers_go_on():
    saved = state.rng_state()
    expected = torch.rand(3)
    state.set_rng_state(saved)
    assert torch.equal(torch.rand(3), expected)


def test_another_recipe_is_refused_with_the_difference(squares):
    recipe = make_recipe(squares)
    harmless = make_recipe(squares, {"data.workers": 2, "samples.every": 5, "run.keep_last": 1})
    assert state.check_same(recipe, harmless, data=("a", "a"), world=(1, 1)) == []
    moved = {"data.path": "/else/where", "run.gradient_checkpointing": True}
    meant = make_recipe(squares, {"optimizer.lr": 0.5, "run.batch_size": 2, **moved})
    assert state.check_same(recipe, meant, data=("a", "a"), world=(1, 1)) == [
        "run.batch_size: 3 -> 2",
        "optimizer.lr: 0.001 -> 0.5",
    ]
    other = make_recipe(squares, {"optimizer.kind": "muon", "objective.min_snr_gamma": 5.0})
    with pytest.raises(ConfigError) as caught:
        state.check_same(recipe, other, data=("a", "b"), world=(1, 2))
    for part in (
        'optimizer.kind: "adamw" -> "muon"',
        "objective.min_snr_gamma: unset -> 5.0",
        "the data has changed",
        "processes: 1 -> 2",
    ):
        assert part in str(caught.value)
