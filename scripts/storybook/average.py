"""Average the U-Nets of two models: `python -m scripts.storybook.average --help`.

Where one was trained on from the other, a model between them can be better than both (Wortsman et
al., "Model soups", arXiv:2203.05482).
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from scripts.storybook.grow import CONFIG, FILE

Weights = Mapping[str, Tensor]


def average(first: Weights, second: Weights, share: float) -> Weights:
    """(1 - share) of the first's weights and `share` of the second's, in float32.

    Raises ValueError where they are not weights of the same network.
    """
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise ValueError("the two U-Nets differ in shape")
    return {name: first[name].float().lerp(second[name].float(), share) for name in first}


def main(argv: Sequence[str] | None = None) -> int:
    """Copy the second model with the averaged U-Net."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.storybook.average", description=__doc__
    )
    parser.add_argument("--models", type=Path, nargs=2, required=True, help="two folders")
    parser.add_argument("--share", type=float, required=True, help="of the second, 0 to 1")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    arguments = parser.parse_args(argv)
    before, after = (model / "unet" for model in arguments.models)
    unet = arguments.out / "unet"
    shutil.copytree(
        after.parent, arguments.out, ignore=shutil.ignore_patterns("unet"), dirs_exist_ok=True
    )
    unet.mkdir(exist_ok=True)
    mean = average(load_file(before / FILE), load_file(after / FILE), arguments.share)
    save_file({n: t.half() for n, t in mean.items()}, unet / FILE, metadata={"format": "pt"})
    shutil.copyfile(after / CONFIG, unet / CONFIG)  # the last: with it, all is there
    return 0


if __name__ == "__main__":
    sys.exit(main())
