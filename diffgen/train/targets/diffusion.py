"""The `diffusion` target: a U-Net, with its text encoders if asked, on latents or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from diffgen.diffusion.prediction import add_noise, regression_target
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.networks import Networks
from diffgen.engine.plan import GeneratePlan
from diffgen.models.clip import ClipTextModel
from diffgen.train.data.dataset import Batch
from diffgen.train.draws import Draws
from diffgen.train.recipe.recipe import ObjectiveRecipe, Recipe
from diffgen.train.targets import objectives
from diffgen.train.targets.encoding import Latents, size_ids
from diffgen.train.targets.exporter import FolderExporter
from diffgen.train.targets.networks import build_networks, place_frozen
from diffgen.train.targets.previewer import PromptPreviewer, folder_engine, preview_request
from diffgen.train.targets.target import Target
from diffgen.train.targets.text import TokenBatch, encode, tokenize
from diffgen.types import Conditioning


@dataclass(frozen=True, slots=True)
class DiffusionInputs:
    """A batch ready for the networks: `text` is conditioning, or tokens where encoders learn."""

    noisy: Tensor  # (B, C, h, w)
    t: Tensor  # (B,)
    wanted: Tensor  # (B, C, h, w)
    weight: Tensor  # (B,)
    text: Conditioning | tuple[TokenBatch, ...]
    time_ids: Tensor  # (B, 6)


class DiffusionModule(nn.Module):
    """The networks that learn, and the loss."""

    def __init__(self, networks: Networks, objective: ObjectiveRecipe, *, with_text: bool) -> None:
        super().__init__()
        self.config, self.objective = networks.config, objective
        self.unet = networks.unet
        self.encoders = nn.ModuleList(networks.encoders if with_text else ())

    def forward(self, inputs: DiffusionInputs) -> dict[str, Tensor]:
        """The weighted error of the prediction, averaged over the batch."""
        cond = inputs.text
        if not isinstance(cond, Conditioning):
            encoders = cast(Sequence[ClipTextModel], self.encoders)
            cond = encode(self.config, encoders, cond, inputs.time_ids)
        output = self.unet(inputs.noisy, inputs.t, cond).float()
        if self.objective.loss == "huber":
            error = objectives.huber_error(output, inputs.wanted, self.objective.huber_c)
        else:
            error = objectives.squared_error(output, inputs.wanted)
        return {"loss": (inputs.weight * error).mean()}


class DiffusionBatches:
    """Draws timesteps and noise for a batch, and encodes what does not learn."""

    def __init__(
        self, recipe: Recipe, networks: Networks, latents: Latents, *, learns_text: bool
    ) -> None:
        self.objective, self.networks, self.latents = recipe.objective, networks, latents
        self.learns_text, self.device = learns_text, latents.device
        tables = NoiseSchedule.from_config(networks.config.schedule)
        self.alphas_cumprod = torch.tensor(tables.alphas_cumprod, device=self.device)

    @torch.no_grad()
    def __call__(self, batch: Batch, draws: Draws) -> DiffusionInputs:
        """Noisy latents, and what the U-Net should say of them."""
        prediction = self.networks.config.schedule.prediction
        t = self._timesteps(draws)
        x0 = self.latents.of(batch, draws)
        noise = self._noise(x0, draws)
        alpha_bar = self.alphas_cumprod[t]
        time_ids = size_ids(batch, self.device)
        return DiffusionInputs(
            add_noise(x0, noise, alpha_bar),
            t,
            regression_target(x0, noise, alpha_bar, prediction),
            self._weight(alpha_bar),
            self._text(batch, time_ids),
            time_ids,
        )

    def _timesteps(self, draws: Draws) -> Tensor:
        objective, count = self.objective, len(self.alphas_cumprod)
        if objective.timesteps == "uniform":
            return objectives.uniform_timesteps(draws.uniform(), count)
        mean, std = objective.logit_mean, objective.logit_std
        z = draws.normal(())
        return objectives.logit_normal_timesteps(z, count, mean=mean, std=std)

    def _noise(self, x0: Tensor, draws: Draws) -> Tensor:
        noise, strength = draws.normal(x0.shape[1:]), self.objective.noise_offset
        if not strength:
            return noise
        return objectives.offset_noise(noise, draws.normal(x0.shape[1:2]), strength)

    def _weight(self, alpha_bar: Tensor) -> Tensor:
        gamma = self.objective.min_snr_gamma
        if gamma is None:
            return torch.ones_like(alpha_bar)
        prediction = self.networks.config.schedule.prediction
        return objectives.min_snr_weight(alpha_bar, prediction, gamma)

    def _text(self, batch: Batch, time_ids: Tensor) -> Conditioning | tuple[TokenBatch, ...]:
        networks = self.networks
        tokens = tokenize(networks.tokenizers, batch.captions, self.device)
        if self.learns_text:
            return tokens
        return encode(networks.config, networks.encoders, tokens, time_ids)


def diffusion_target(recipe: Recipe, device: torch.device) -> Target:
    """Train a text-to-image model; the result is a folder that `diffgen generate` runs.

    Raises what `build_networks` raises, and what the export and the preview would raise in the end.
    """
    start = build_networks(recipe)
    networks, learns_text = start.networks, recipe.model.train_text_encoder
    exporter, request = FolderExporter(start), preview_request(recipe)
    exporter.check()
    GeneratePlan.make(request, networks.config)
    place_frozen(networks, recipe, device)
    latents = Latents(recipe, networks, device)
    module = DiffusionModule(networks, recipe.objective, with_text=learns_text)
    return Target(
        module=module.requires_grad_(True),
        inputs=DiffusionBatches(recipe, networks, latents, learns_text=learns_text),
        export=exporter,
        preview=PromptPreviewer(recipe, request, folder_engine(recipe)),
        tokenizers=networks.tokenizers,
        latent_encoder=latents,
    )
