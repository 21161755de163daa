"""The `contrastive` target: text encoders learn to tell which caption belongs to which picture.

CLIP's objective (Radford et al., arXiv:2103.00020, figure 3), against a small network that sees
latents. Meant for encoders that begin from nothing: a U-Net trained together with one draws the
same picture for every caption until the words have meanings. The result is a model whose U-Net is
unchanged, for `model.base` of the diffusion target.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffgen.engine.networks import Networks
from diffgen.models.clip import ClipTextModel
from diffgen.train.data.dataset import Batch
from diffgen.train.draws import Draws
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.targets.encoding import Latents
from diffgen.train.targets.exporter import FolderExporter
from diffgen.train.targets.networks import build_networks, place_frozen
from diffgen.train.targets.target import Target
from diffgen.train.targets.text import TokenBatch, tokenize

WIDTHS = (64, 128, 256)  # of the picture network's convolutions
GRID = 4  # its cells along a side, so that captions can say where things are
EMBEDDING = 256
SCALE, MAX_SCALE = log(1 / 0.07), log(100.0)  # of the logits; section 2.5 of the paper


@dataclass(frozen=True, slots=True)
class ContrastiveInputs:
    """Latents (B, C, h, w) and their captions, one batch of tokens per encoder."""

    latents: Tensor
    tokens: tuple[TokenBatch, ...]


class PictureTower(nn.Module):
    """Latents (B, C, h, w) to vectors (B, EMBEDDING)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU()]
            channels = width
        layers += [nn.AdaptiveAvgPool2d(GRID), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(channels * GRID**2, EMBEDDING))

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, EMBEDDING)."""
        out: Tensor = self.layers(latents)
        return out


class ContrastiveModule(nn.Module):
    """The text encoders, the picture network and the loss."""

    def __init__(self, encoders: Sequence[ClipTextModel], channels: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.tower = PictureTower(channels)
        width = sum(encoder.config.width for encoder in encoders)
        self.projection = nn.Linear(width, EMBEDDING, bias=False)
        self.scale = nn.Parameter(torch.tensor(SCALE))

    def forward(self, inputs: ContrastiveInputs) -> dict[str, Tensor]:
        """Cross entropy over the batch, both ways, and the share of captions matched right."""
        pictures = F.normalize(self.tower(inputs.latents).float(), dim=-1)
        captions = F.normalize(self._captions(inputs.tokens).float(), dim=-1)
        logits = self.scale.clamp(max=MAX_SCALE).exp() * captions @ pictures.T  # (B, B)
        right = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        matched = (logits.argmax(dim=1) == right).float().mean()
        return {"loss": loss, "matched": matched}

    def _captions(self, tokens: Sequence[TokenBatch]) -> Tensor:
        """(B, EMBEDDING), from what the U-Net reads at each caption's end."""
        encoders = cast(Sequence[ClipTextModel], self.encoders)
        ends = []
        for encoder, t in zip(encoders, tokens, strict=True):
            context = encoder(t.ids, t.end).context
            ends.append(context[torch.arange(len(t.end), device=t.end.device), t.end])
        out: Tensor = self.projection(torch.cat(ends, dim=-1))
        return out


class ContrastiveBatches:
    """Encodes the pictures of a batch and tokenizes its captions."""

    def __init__(self, networks: Networks, latents: Latents) -> None:
        self.networks, self.latents = networks, latents

    @torch.no_grad()
    def __call__(self, batch: Batch, draws: Draws) -> ContrastiveInputs:
        """Latents and tokens."""
        tokens = tokenize(self.networks.tokenizers, batch.captions, self.latents.device)
        return ContrastiveInputs(self.latents.of(batch, draws), tokens)


def no_preview(model: Path, picture: Path, held_out: Iterator[Batch]) -> None:
    """Draw nothing: no picture shows what the encoders have learned."""


def contrastive_target(recipe: Recipe, device: torch.device) -> Target:
    """Train the text encoders of a model, new or given, and leave the rest of it as it is.

    Raises what `build_networks` raises, and what the export would raise in the end.
    """
    start = build_networks(recipe)
    networks, exporter = start.networks, FolderExporter(start)
    exporter.check()
    place_frozen(networks, recipe, device)
    torch.manual_seed(recipe.run.seed)
    channels = networks.config.latent_channels
    latents = Latents(recipe, networks, device)
    return Target(
        module=ContrastiveModule(networks.encoders, channels).to(device).requires_grad_(True),
        inputs=ContrastiveBatches(networks, latents),
        export=exporter,
        preview=no_preview,
        tokenizers=networks.tokenizers,
        latent_encoder=latents,
    )
