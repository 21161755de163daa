"""The late adversarial term of the `autoencoder` target, and the discriminator it learns against.

The discriminator judges patches (Isola et al., arXiv:1611.07004, section 3.2.2), the losses are
hinges (Lim and Ye, arXiv:1705.02894) and the term is weighed against the others as in VQGAN (Esser
et al., arXiv:2012.09841, eq. 7).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.train.dist import World
from diffgen.train.recipe.recipe import AutoencoderRecipe

WIDTHS = (64, 128, 256, 512)  # C64-C128-C256-C512 of arXiv:1611.07004, appendix 6.1.2
GROUPS = 32
BETAS = (0.5, 0.9)  # those of VQGAN: a momentum of 0.9 lags behind a moving generator
DELTA = 1e-6  # as in VQGAN, eq. 7
LARGEST_WEIGHT = 1e4  # the bound in VQGAN's published code


class PatchDiscriminator(nn.Module):
    """A score for each 70 x 70 patch of a picture: high for real ones.

    Normalised by group instead of by batch, so that a score depends on no other picture.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, WIDTHS[0], stride=2), nn.LeakyReLU(0.2)]
        for before, after in pairwise(WIDTHS):
            stride = 1 if after == WIDTHS[-1] else 2
            norm = nn.GroupNorm(GROUPS, after)
            layers += [_conv(before, after, stride=stride), norm, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _conv(WIDTHS[-1], 1, stride=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)  # arXiv:1611.07004, appendix 6.2

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 1, H // 8 - 2, W // 8 - 2) float32."""
        scores: Tensor = self.layers(pixels).float()
        return scores


def _conv(before: int, after: int, *, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride=stride, padding=1)


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """The hinge loss of the discriminator: 1 for undecided scores, 0 for certain ones."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + made).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """The factor that gives the adversarial loss as large a gradient as the reconstruction's.

    Both are gradients of these losses at the last layer's weights (arXiv:2012.09841, eq. 7).
    """
    ratio: Tensor = reconstruction.norm() / (adversarial.norm() + DELTA)
    return ratio.clamp(max=LARGEST_WEIGHT)


class Adversary:
    """A discriminator with its optimizer, and its losses of the current step.

    It takes part in steps from `start` on. Gradients, also those behind the adaptive weight, are
    averaged over all processes.
    """

    def __init__(self, recipe: AutoencoderRecipe, device: torch.device) -> None:
        self.weight, self.start = recipe.adversarial, recipe.adversarial_start
        self.discriminator = PatchDiscriminator().to(device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(),
            betas=BETAS,
            weight_decay=0.0,
            fused=device.type in ("cpu", "cuda"),
        )
        self.active = False
        self._world = World(0, 1, device)
        self._losses: list[Tensor] = []

    def begin(self, step: int, world: World) -> None:
        """Prepare for a step, counted from 0."""
        self.active, self._world = step >= self.start, world
        self._losses = []

    def term(self, loss: Tensor, output: Tensor, pixels: Tensor, last: Tensor) -> Tensor:
        """What to add to the reconstruction `loss` of `output`; 0 before the start.

        `last` is the weight of the layer that makes `output`.
        """
        if not self.active:
            return loss.new_zeros(())
        self.discriminator.requires_grad_(False)
        adversarial: Tensor = -self.discriminator(output).mean()
        self.discriminator.requires_grad_(True)
        scores = self.discriminator(pixels), self.discriminator(output.detach())
        self._losses.append(hinge_loss(*scores))
        gradients = [
            torch.autograd.grad(value, last, retain_graph=True)[0] for value in (loss, adversarial)
        ]
        self._world.average(gradients)
        return self.weight * adaptive_weight(*gradients) * adversarial

    def learn(self, rate: float) -> dict[str, float]:
        """Update the discriminator from all pictures of the step; returns its loss by name."""
        if not self.active:
            return {"discriminator": 0.0}
        loss = torch.stack(self._losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._world.average([p.grad for p in self.discriminator.parameters() if p.grad is not None])
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._world.mean({"discriminator": float(loss.detach())})

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
