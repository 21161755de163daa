"""Find whether a U-Net predicts eps or v, by one evaluation at the last timestep.

There x_t is nearly pure noise. eps equals that noise; v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar)
x0 (arXiv:2202.00512, appendix D) is nearly -x0, which does not correlate with it.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from diffgen.engine.networks import load_network
from diffgen.errors import UsageError
from diffgen.models.build import unet_of
from diffgen.models.config import ModelConfig
from diffgen.models.unet import UNet
from diffgen.types import Conditioning, Prediction
from diffgen.weights.checkpoint import Checkpoint

logger = logging.getLogger("diffgen")

LIKE_NOISE = 0.7  # the correlation of eps; trained models have 0.98 and more
UNLIKE = 0.4  # that of v; sqrt(alpha_bar) = 0.07 of it is noise
LARGEST = 32  # latents along a side, which is enough to tell


def probe(checkpoint: Checkpoint) -> Prediction:
    """Tell eps from v by one evaluation of the U-Net in float32 on the CPU; logs the answer.

    Raises UsageError for a model without betas, and for an unclear answer.
    """
    config = checkpoint.config
    if not config.schedule.on_betas:
        raise UsageError(
            f"--probe tells eps from v; this model predicts {config.schedule.prediction}"
        )
    unet = load_network(unet_of, config, checkpoint, "unet", torch.device("cpu"), torch.float32)
    alike = likeness(unet, config)
    if UNLIKE < alike < LIKE_NOISE:
        raise UsageError(
            f"--probe cannot tell what this model predicts: its output at the last timestep is "
            f"{alike:.2f} like the noise (eps: 1, v: 0); say --prediction eps or v"
        )
    found: Prediction = "eps" if alike >= LIKE_NOISE else "v"
    logger.warning(
        "--probe: at the last timestep the output is %.2f like the noise, so the model predicts %s",
        alike,
        found,
    )
    return found


@torch.inference_mode()
def likeness(unet: UNet, config: ModelConfig) -> float:
    """The correlation of the U-Net's output with the noise at the last timestep, -1 to 1."""
    side = min(config.native_size // config.factor, LARGEST)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, config.latent_channels, side, side, generator=generator)
    t = torch.tensor([config.schedule.num_train_timesteps - 1.0])
    output = unet(x, t, _nothing(config, side))[:, : config.latent_channels]
    both = torch.stack([x.flatten(), output.flatten()])
    return float(torch.corrcoef(both)[0, 1])


def _nothing(config: ModelConfig, side: int) -> Conditioning:
    """Empty conditioning of one picture."""
    text = config.text
    pooled: Tensor | None = None
    time_ids: Tensor | None = None
    if config.conditioning != "text":
        pooled = torch.zeros(1, text[-1].projection or text[-1].width)
    if config.takes_time_ids:
        time_ids = torch.full((1, config.size_ids), float(side * config.factor))
    extra = config.extra_channels
    return Conditioning(
        torch.zeros(1, text[0].max_tokens, config.context_width),
        pooled=pooled,
        time_ids=time_ids,
        concat=torch.zeros(1, extra, side, side) if extra else None,
        guidance=torch.ones(1) if config.embeds_guidance else None,
    )
