"""The contrastive target: captions come to be matched with their pictures."""

import json

import pytest
import torch
from safetensors.torch import load_file
from training import Listener, make_recipe

from diffgen.models.clip import ClipTextModel
from diffgen.models.config import ClipTextConfig
from diffgen.train import run
from diffgen.train.targets.contrastive import MAX_SCALE, ContrastiveModule

CHANGES = {
    "target": "contrastive",
    "run.steps": 40,
    "run.batch_size": 8,
    "run.save_dtype": "fp32",
    "optimizer.lr": 1e-3,
    "data.caption_dropout": 0.0,
}


def test_captions_are_matched_with_their_pictures(squares, tmp_path):
    """Four colours in batches of eight: chance is 1 in 8, and half is all that can be told."""
    run.train(make_recipe(squares, CHANGES), tmp_path, resume=False, reporter=Listener())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]  # it came to 0.36
    matched = [row["matched"] for row in rows if "matched" in row][-10:]
    assert sum(matched) / len(matched) > 0.3


def test_what_it_leaves_is_a_base_for_diffusion(squares, tmp_path):
    short = {**CHANGES, "run.steps": 2}
    run.train(make_recipe(squares, short), tmp_path / "a", resume=False, reporter=Listener())
    changes = {"model": {"base": str(tmp_path / "a" / "model")}, "run.steps": 1}
    untrained = {"run.steps": 1, "optimizer.lr": 0.0, "run.save_dtype": "fp32"}
    run.train(make_recipe(squares, untrained), tmp_path / "b", resume=False, reporter=Listener())
    run.train(make_recipe(squares, changes), tmp_path / "c", resume=False, reporter=Listener())

    def weights(name, part):
        (file,) = (tmp_path / name / "model" / part).glob("*.safetensors")
        return load_file(file)

    unets, texts = ([weights(run, part) for run in "ab"] for part in ("unet", "text_encoder"))
    assert all(torch.equal(unets[0][key], unets[1][key]) for key in unets[0])
    assert any(not torch.equal(texts[0][key], texts[1][key]) for key in texts[0])


@pytest.mark.parametrize("scale", [0.0, 50.0])
def test_the_scale_is_bounded(scale):
    config = ClipTextConfig(
        vocab_size=20, width=8, layers=1, num_heads=1, mlp_width=8, max_tokens=4
    )
    module = ContrastiveModule([ClipTextModel(config)], channels=3)
    module.scale.data.fill_(scale)
    assert module.scale.clamp(max=MAX_SCALE).exp() <= 100.01
