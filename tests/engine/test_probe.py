"""diffgen.engine.probe: what a U-Net predicts, by asking it once."""

import logging

import pytest
import torch
from tiny_models import TinyModel

from diffgen.engine.model import Model
from diffgen.engine.probe import likeness
from diffgen.errors import UsageError
from diffgen.settings.model import Source


def test_storybook_predicts_v(caplog):
    with caplog.at_level(logging.WARNING, "diffgen"):
        model = Model.open(Source(model="storybook", probe=True))
    assert model.checkpoint.config.schedule.prediction == "v"
    assert model.checkpoint.config == Model.open("storybook").checkpoint.config
    assert "so the model predicts v" in caplog.text


class Says:
    """A network that knows the picture: all that is said of it is what it is asked for."""

    def __init__(self, kind: str, alpha_bar: float) -> None:
        self.kind, self.alpha_bar = kind, alpha_bar

    def __call__(self, x, t, cond):
        picture = torch.linspace(-2, 2, x.numel()).reshape(x.shape)
        a, b = self.alpha_bar**0.5, (1 - self.alpha_bar) ** 0.5
        eps = (x - a * picture) / b
        return eps if self.kind == "eps" else a * eps - b * picture


@pytest.mark.parametrize(("kind", "low", "high"), [("eps", 0.95, 1.0), ("v", -0.3, 0.3)])
def test_eps_is_the_noise_and_v_is_not(kind, low, high):
    config = Model.open("storybook").checkpoint.config
    assert low <= likeness(Says(kind, 0.0047), config) <= high


def test_an_answer_that_tells_nothing_is_no_answer(sd1: TinyModel, monkeypatch):
    monkeypatch.setattr("diffgen.engine.probe.likeness", lambda unet, config: 0.55)
    with pytest.raises(UsageError, match=r"is 0.55 like the noise .* say --prediction eps or v"):
        Model.open(Source(model=str(sd1.folder), probe=True))


def test_what_the_user_says_is_not_asked(sd1: TinyModel):
    with pytest.raises(UsageError, match="--prediction says what --probe would find out"):
        Model.open(Source(model=str(sd1.folder), probe=True, prediction="v"))
