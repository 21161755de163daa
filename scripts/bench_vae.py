"""Decoding latents to a picture, ours and diffusers', with the same random weights.

python scripts/bench_vae.py                # Stable Diffusion's autoencoder at 512 x 512
python scripts/bench_vae.py --size 1024
"""

from __future__ import annotations

import torch
from bench_step import DTYPES, check
from benchmark import Case, arguments, gemm_ceiling, measure, report
from torch import Tensor, nn

from diffgen.models.build import build_empty
from diffgen.models.config import VaeConfig
from diffgen.models.fast.inference import prepare
from diffgen.models.vae import Autoencoder
from diffgen.weights.diffusers.layout import vae_json

MODELS = {
    "sd": VaeConfig(),
    "tiny": VaeConfig(channels=(32, 32, 32, 64), blocks=1),
}


def random_state(config: VaeConfig) -> dict[str, Tensor]:
    """Weights of a sensible size; the values do not matter to the time."""
    torch.manual_seed(0)
    shapes = build_empty(Autoencoder, config).state_dict()
    return {name: 0.02 * torch.randn(tensor.shape) for name, tensor in shapes.items()}


def ours(config: VaeConfig, state: dict[str, Tensor], latents: Tensor) -> Case:
    """Our decoder, in the latents' number format, as the engine prepares it."""
    vae = build_empty(Autoencoder, config)
    vae.load_state_dict({k: v.to(latents) for k, v in state.items()}, assign=True)
    prepare(vae)
    return lambda: vae.decode(latents).float()


def theirs(config: VaeConfig, state: dict[str, Tensor], latents: Tensor) -> Case:
    """diffusers' decoder, which takes latents that are scaled back already."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae: nn.Module = AutoencoderKL.from_config(vae_json(config))
    vae.load_state_dict({k: v.to(latents) for k, v in state.items()}, assign=True)
    decode = vae.decode
    return lambda: decode(latents / config.scaling_factor).sample.float()  # type: ignore[operator] # nn.Module has no decode


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__,
        model={"choices": list(MODELS), "default": "sd"},
        size={"type": int, "default": 512, "help": "side of the picture in pixels"},
        dtypes={"default": "fp32,bf16", "help": "of fp32, bf16, fp16"},
        ceiling={"type": int, "default": 2048, "help": "side of the product it is compared with"},
    )
    config = MODELS[options.model]
    state = random_state(config)
    side = options.size // config.factor
    latents = torch.randn(1, config.latent_channels, side, side, device=options.device)
    cases: dict[str, Case] = {}
    ceilings = {}
    for name in options.dtypes.split(","):
        typed = latents.to(DTYPES[name])
        found = {
            f"diffusers {name}": theirs(config, state, typed),
            f"diffgen {name}": ours(config, state, typed),
        }
        cases |= found
        ceilings |= dict.fromkeys(
            found, gemm_ceiling(options.device, DTYPES[name], side=options.ceiling)
        )
    check(cases)
    title = f"Decoding one picture of {options.size} x {options.size} ({options.model})"
    report(title, measure(cases, runs=options.runs), options, ceilings=ceilings)


if __name__ == "__main__":
    main()
