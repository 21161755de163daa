"""A model with an autoencoder of more latent channels draws what it drew, until it learns more."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen.models.build import build_empty
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.types import Conditioning
from scripts.storybook.widen import WEIGHTS, main, widened

SMALL = {
    "channels": (8,),
    "blocks": (1,),
    "depth": (1,),
    "num_heads": (1,),
    "context_dim": 8,
    "norm_groups": 4,
}


def unet(channels: int, state: dict[str, torch.Tensor] | None = None) -> UNet:
    torch.manual_seed(0)
    config = UNetConfig(in_channels=channels, out_channels=channels, **SMALL)
    if state is None:
        return UNet(config)
    made = build_empty(UNet, config)
    made.load_state_dict(state, assign=True)
    return made


def test_the_first_channels_are_predicted_as_before_and_the_others_as_nothing() -> None:
    before = unet(4)
    after = unet(6, widened(before.state_dict(), 6))
    x, t = torch.randn(2, 6, 8, 8), torch.tensor([3, 900])
    cond = Conditioning(torch.randn(2, 5, 8))
    with torch.no_grad():
        torch.testing.assert_close(after(x, t, cond)[:, :4], before(x[:, :4], t, cond))
        assert not after(x, t, cond)[:, 4:].any()


def test_fewer_channels_are_refused() -> None:
    with pytest.raises(SystemExit, match="4 and 4 channels, not 3"):
        widened(unet(4).state_dict(), 3)


def test_a_folder_gets_the_other_autoencoder_and_a_unet_to_match(tmp_path: Path) -> None:
    model, other, out = tmp_path / "model", tmp_path / "other", tmp_path / "out"
    for folder in (model / "unet", model / "vae", other / "vae"):
        folder.mkdir(parents=True)
    save_file(unet(4).state_dict(), model / "unet" / WEIGHTS)
    (model / "unet/config.json").write_text('{"in_channels": 4, "out_channels": 4, "a": 1}')
    (model / "vae/config.json").write_text('{"latent_channels": 4}')
    (other / "vae/config.json").write_text('{"latent_channels": 6}')
    arguments = {"--model": model, "--autoencoder": other, "--out": out}
    assert main([str(word) for pair in arguments.items() for word in pair]) == 0
    config = json.loads((out / "unet/config.json").read_text())
    assert config == {"in_channels": 6, "out_channels": 6, "a": 1}
    assert json.loads((out / "vae/config.json").read_text()) == {"latent_channels": 6}
    assert load_file(out / "unet" / WEIGHTS)["conv_in.weight"].shape[1] == 6
