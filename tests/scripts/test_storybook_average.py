"""The mean of two U-Nets, in a model that loads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen.weights.checkpoint import Checkpoint
from scripts.storybook.average import average, main
from scripts.storybook.grow import FILE
from tests.tiny_models import STORYBOOK


def test_the_mean_is_of_each_weight() -> None:
    first, second = {"a": torch.tensor([0.0, 4.0])}, {"a": torch.tensor([10.0, 4.0]).half()}
    assert average(first, second, 0.7)["a"].tolist() == pytest.approx([7.0, 4.0])


@pytest.mark.parametrize("other", [{"a": torch.zeros(3)}, {"b": torch.zeros(2)}])
def test_other_networks_are_refused(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        average({"a": torch.zeros(2)}, other, 0.5)


def test_an_averaged_model_is_whole(tmp_path: Path) -> None:
    """Between a model and one whose weights are all 0, a quarter of the way."""
    zero, out = tmp_path / "zero", tmp_path / "out"
    weights = load_file(STORYBOOK / "unet" / FILE)
    (zero / "unet").mkdir(parents=True)
    save_file(
        {name: torch.zeros_like(each) for name, each in weights.items()}, zero / "unet" / FILE
    )
    assert main(["--models", str(zero), str(STORYBOOK), "--share", "0.25", "--out", str(out)]) == 0
    assert Checkpoint.open(out).tensors.keys() == Checkpoint.open(STORYBOOK).tensors.keys()
    made = load_file(out / "unet" / FILE)
    name = max(weights, key=lambda each: weights[each].numel())
    torch.testing.assert_close(made[name], weights[name] * 0.25)
