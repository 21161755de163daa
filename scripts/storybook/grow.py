"""Give a U-Net more residual blocks: `python -m scripts.storybook.grow --help`.

The new blocks are identities at first, as Net2Net's are (Chen, Goodfellow and Shlens,
arXiv:1511.05641): the larger network draws what the smaller one drew, and learns from there.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = Mapping[str, Tensor]
FILE: Final = "diffusion_pytorch_model.safetensors"
CONFIG: Final = "config.json"
BLOCKS: Final = "layers_per_block"


def grown(unet: Weights, blocks: Sequence[int], more: Sequence[int], seed: int = 0) -> Weights:
    """The weights of a U-Net with `more` residual blocks a level instead of `blocks`.

    Levels run from the highest resolution to the lowest. Raises ValueError for fewer blocks, and
    for a level with attention.
    """
    larger = dict(unet)
    generator = torch.Generator().manual_seed(seed)
    for level, (old, new) in enumerate(zip(blocks, more, strict=True)):
        if new == old:
            continue
        down, up = f"down_blocks.{level}.", f"up_blocks.{len(blocks) - 1 - level}."
        if new < old or any(f"{side}attentions.0.norm.weight" in unet for side in (down, up)):
            raise ValueError(f"level {level} cannot go from {old} to {new} blocks")
        # A block going up reads what the one of the same place going down gave, the last one first;
        # new ones go behind the old ones there, so here behind the first.
        last, added = f"{up}resnets.{old}.", new - old
        moved = {f"{up}resnets.{k}.": f"{up}resnets.{k + added}." for k in range(old, 0, -1)}
        for before, after in moved.items():
            for name in [name for name in larger if name.startswith(before)]:
                larger[after + name.removeprefix(before)] = larger.pop(name)
        like = _part(unet, last)
        for k in range(added):
            larger |= _named(f"{up}resnets.{1 + k}.", _identity(like, generator, joined=True))
            larger |= _named(f"{down}resnets.{old + k}.", _identity(like, generator))
    return larger


def _identity(like: Weights, generator: torch.Generator, joined: bool = False) -> Weights:
    """A block as wide as `like` that adds nothing yet; `joined`: to the first half of its input."""
    width, _, *kernel = like["conv2.weight"].shape
    inputs = 2 * width if joined else width
    embedding = like["time_emb_proj.weight"].shape[1]
    block = {
        "norm1.weight": torch.ones(inputs),
        "norm1.bias": torch.zeros(inputs),
        "conv1.weight": _random((width, inputs, *kernel), generator),
        "conv1.bias": torch.zeros(width),
        "time_emb_proj.weight": _random((width, embedding), generator),
        "time_emb_proj.bias": torch.zeros(width),
        "norm2.weight": torch.ones(width),
        "norm2.bias": torch.zeros(width),
        "conv2.weight": torch.zeros(width, width, *kernel),
        "conv2.bias": torch.zeros(width),
    }
    if joined:
        block["conv_shortcut.weight"] = torch.eye(width, inputs)[:, :, None, None].contiguous()
        block["conv_shortcut.bias"] = torch.zeros(width)
    return block


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Weights that keep the variance of their inputs."""
    weights = torch.randn(shape, generator=generator)
    return weights / weights[0].numel() ** 0.5


def _part(weights: Weights, prefix: str) -> Weights:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _named(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Copy a model with a larger U-Net."""
    parser = argparse.ArgumentParser(prog="python -m scripts.storybook.grow", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the smaller model")
    parser.add_argument("--blocks", type=int, nargs="+", required=True, help="of each level")
    parser.add_argument("--out", type=Path, required=True, help="folder of the larger model")
    arguments = parser.parse_args(argv)
    source, out = arguments.model / "unet", arguments.out / "unet"
    shutil.copytree(
        arguments.model, arguments.out, ignore=shutil.ignore_patterns("unet"), dirs_exist_ok=True
    )
    out.mkdir(exist_ok=True)
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    weights = grown(load_file(source / FILE), config[BLOCKS], arguments.blocks)
    save_file({n: t.half().contiguous() for n, t in weights.items()}, out / FILE)
    whole = json.dumps(config | {BLOCKS: arguments.blocks}, indent=2)
    (out / CONFIG).write_text(whole + "\n", encoding="utf-8")  # the last: with it, all is there
    return 0


if __name__ == "__main__":
    sys.exit(main())
