"""Give a model an autoencoder of more latent channels: `python -m scripts.storybook.widen --help`.

The first channels of the new latents are the model's own (a recipe's `autoencoder.teacher`). The
U-Net at first draws them as before and leaves the others at 0; training teaches it those.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "diffusion_pytorch_model.safetensors"


def widened(state: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A U-Net's tensors for more latent channels, which it does not see and where it predicts 0."""
    into, out, bias = (
        state[name] for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias")
    )
    more = channels - len(bias)
    if more < 0 or into.shape[1] != len(bias):
        raise SystemExit(f"a U-Net of {into.shape[1]} and {len(bias)} channels, not {channels}")
    return state | {
        "conv_in.weight": F.pad(into, (0, 0, 0, 0, 0, more)),
        "conv_out.weight": F.pad(out, (0, 0, 0, 0, 0, 0, 0, more)),
        "conv_out.bias": F.pad(bias, (0, more)),
    }


def widen(model: Path, autoencoder: Path, out: Path) -> None:
    """Write the model with another autoencoder, `vae/` of a folder, to a new folder `out`."""
    channels = json.loads((autoencoder / "vae/config.json").read_text())["latent_channels"]
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("vae", "*.png", "README.md"))
    shutil.copytree(autoencoder / "vae", out / "vae")
    weights, settings = out / "unet" / WEIGHTS, out / "unet/config.json"
    save_file(widened(load_file(weights), channels), weights)
    config = json.loads(settings.read_text())
    settings.write_text(
        json.dumps(config | {"in_channels": channels, "out_channels": channels}, indent=2) + "\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.storybook.widen", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a whole model")
    parser.add_argument("--autoencoder", type=Path, required=True, help="folder with vae/")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args(argv)
    widen(options.model, options.autoencoder, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
