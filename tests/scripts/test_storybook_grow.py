"""A U-Net with more blocks draws what it drew before, and its new blocks learn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffgen.models.config import UNetConfig
from diffgen.models.unet import Conditioning, UNet
from diffgen.weights.checkpoint import Checkpoint
from scripts.storybook.grow import grown, main
from tests.tiny_models import STORYBOOK

SMALL = UNetConfig(
    in_channels=4,
    out_channels=4,
    channels=(32, 32, 64),
    blocks=(2, 1, 1),
    depth=(0, 0, 1),
    num_heads=(1, 1, 2),
    context_dim=16,
)


def unet(blocks: tuple[int, ...]) -> UNet:
    torch.manual_seed(3)
    return UNet(replace(SMALL, blocks=blocks)).eval()


def drawn(network: UNet) -> Tensor:
    made = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, 16, 16, generator=made)
    words = Conditioning(torch.randn(2, 5, 16, generator=made))
    return network(latents, torch.tensor([900.0, 30.0]), words)


@pytest.mark.parametrize("more", [(4, 1, 1), (2, 3, 1), (3, 2, 1)])
def test_a_larger_unet_draws_the_same(more: tuple[int, ...]) -> None:
    small, large = unet(SMALL.blocks), unet(more)
    large.load_state_dict(grown(small.state_dict(), SMALL.blocks, more))
    torch.testing.assert_close(drawn(large), drawn(small), rtol=0, atol=1e-5)


def test_new_blocks_learn() -> None:
    large = unet((3, 1, 1))
    large.load_state_dict(grown(unet(SMALL.blocks).state_dict(), SMALL.blocks, (3, 1, 1)))
    drawn(large).square().mean().backward()
    for block in (large.down_blocks[0].resnets[2], large.up_blocks[2].resnets[1]):
        assert block.conv2.weight.grad.abs().max() > 0


@pytest.mark.parametrize("more", [(1, 1, 1), (2, 1, 2)])
def test_what_cannot_grow_is_refused(more: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot go from"):
        grown(unet(SMALL.blocks).state_dict(), SMALL.blocks, more)


def test_a_model_is_copied_with_its_larger_unet(tmp_path: Path) -> None:
    before = json.loads((STORYBOOK / "unet" / "config.json").read_text())["layers_per_block"]
    more = [before[0] + 1, *before[1:]]
    words = ["--model", str(STORYBOOK), "--blocks", *map(str, more), "--out", str(tmp_path)]
    assert main(words) == 0
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert config["layers_per_block"] == more
    large, small = (Checkpoint.open(folder).tensors["unet"] for folder in (tmp_path, STORYBOOK))
    assert len(large) > len(small)
    assert (tmp_path / "tokenizer" / "vocab.json").exists()
