"""The `diffusion` target: a U-Net, with its text encoders if asked, on latents or pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn

from diffgen.diffusion.prediction import add_noise, regression_target
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.engine.engine import Engine
from diffgen.engine.networks import Networks
from diffgen.engine.request import GeneratePlan, GenerateRequest
from diffgen.models.clip import ClipTextModel
from diffgen.models.vae import IdentityAutoencoder
from diffgen.text.tokenizer import Tokenizer
from diffgen.train.data.dataset import Batch
from diffgen.train.draws import Draws
from diffgen.train.export import copy_configs, copy_vocabulary, save_component, save_grid
from diffgen.train.recipe.recipe import ObjectiveRecipe, Recipe
from diffgen.train.targets import objectives
from diffgen.train.targets.networks import Start, build_networks, checkpoint_gradients
from diffgen.train.targets.target import LatentEncoder
from diffgen.train.targets.text import TokenBatch, encode, tokenize
from diffgen.types import TEXT_ENCODERS, Conditioning
from diffgen.weights.diffusers.layout import write_model_configs


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


class DiffusionTarget:
    """Trains a text-to-image model; exports a folder that `diffgen generate` runs."""

    def __init__(self, recipe: Recipe, device: torch.device, start: Start | None = None) -> None:
        """Take what to start from, or build or load them. Raises what `build_networks` raises."""
        self.recipe, self.device = recipe, device
        self.start = start or build_networks(recipe)
        self.networks = networks = self.start.networks
        # Refuse now what could not be written or drawn in the end.
        with TemporaryDirectory() as folder:
            self._write_configs(Path(folder))
        GeneratePlan.make(self._request(), networks.config)
        self.learns_text = recipe.model.train_text_encoder
        if recipe.run.gradient_checkpointing:
            checkpoint_gradients(networks.unet)
        for module in (networks.unet, networks.vae, *networks.encoders):
            module.requires_grad_(False)
            # Sharding moves the U-Net block by block: whole, it may not fit.
            if module is not networks.unet or recipe.run.parallel == "ddp":
                module.to(device)
        self.module: nn.Module = DiffusionModule(
            networks, recipe.objective, with_text=self.learns_text
        )
        self.module.requires_grad_(True)
        if recipe.run.compile:
            networks.unet.compile()
        tables = NoiseSchedule.from_config(networks.config.schedule)
        self.alphas_cumprod = torch.tensor(tables.alphas_cumprod, device=device)

    @property
    def tokenizers(self) -> Sequence[Tokenizer]:
        """One per text encoder."""
        return self.networks.tokenizers

    @property
    def latent_encoder(self) -> LatentEncoder:
        """This target itself."""
        return self

    @property
    def opponent(self) -> None:
        """None: the loss is a plain regression."""
        return None

    @torch.no_grad()
    def inputs(self, batch: Batch, draws: Draws) -> Any:
        """Draw timesteps and noise, and encode what is not learned."""
        objective, schedule = self.recipe.objective, self.networks.config.schedule
        t = self._timesteps(draws)
        x0 = self._latents(batch, draws)
        noise = draws.normal(x0.shape[1:])
        if objective.noise_offset:
            shift = draws.normal(x0.shape[1:2])
            noise = objectives.offset_noise(noise, shift, objective.noise_offset)
        alpha_bar = self.alphas_cumprod[t]
        weight = torch.ones_like(alpha_bar)
        if objective.min_snr_gamma is not None:
            gamma = objective.min_snr_gamma
            weight = objectives.min_snr_weight(alpha_bar, schedule.prediction, gamma)
        time_ids = torch.tensor(batch.time_ids, dtype=torch.float32, device=self.device)
        return DiffusionInputs(
            add_noise(x0, noise, alpha_bar),
            t,
            regression_target(x0, noise, alpha_bar, schedule.prediction),
            weight,
            self._text(batch, time_ids),
            time_ids,
        )

    def stepped(self) -> None:
        """Nothing follows the module."""

    def _timesteps(self, draws: Draws) -> Tensor:
        objective, count = self.recipe.objective, len(self.alphas_cumprod)
        if objective.timesteps == "uniform":
            return objectives.uniform_timesteps(draws.uniform(), count)
        mean, std = objective.logit_mean, objective.logit_std
        z = draws.normal(())
        return objectives.logit_normal_timesteps(z, count, mean=mean, std=std)

    def _latents(self, batch: Batch, draws: Draws) -> Tensor:
        """Sample z given the pixels, as the autoencoder was trained; cached latents as they are."""
        vae = self.networks.vae
        if batch.latents is not None:
            return batch.latents.to(self.device)
        assert batch.pixels is not None
        pixels = batch.pixels.to(self.device)
        if isinstance(vae, IdentityAutoencoder):
            return pixels
        mean, logvar = (moment.float() for moment in vae.encode(pixels))
        return vae.to_latents(mean + (0.5 * logvar).exp() * draws.normal(mean.shape[1:]))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to latents (B, C, h, w) by the mean of z, for the cache."""
        vae = self.networks.vae
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._encodes_in_bf16):
            mean, _ = vae.encode(pixels.to(self.device))
        return vae.to_latents(mean.float())

    @property
    def _encodes_in_bf16(self) -> bool:
        # Never in fp16, where some autoencoders overflow.
        return self.recipe.run.precision == "bf16"

    def autoencoder_hash(self) -> str:
        """A hash of the autoencoder, its config and the number format it computes in."""
        digest = blake2b(b"bf16" if self._encodes_in_bf16 else b"fp32", digest_size=16)
        digest.update(repr(self.networks.config.vae).encode())  # its scale, which no weight holds
        for tensor in self.networks.vae.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _text(self, batch: Batch, time_ids: Tensor) -> Conditioning | tuple[TokenBatch, ...]:
        networks = self.networks
        tokens = tokenize(networks.tokenizers, batch.captions, self.device)
        if self.learns_text:
            return tokens
        return encode(networks.config, networks.encoders, tokens, time_ids)

    def export(self, folder: Path, dtype: torch.dtype) -> None:
        """A model folder in diffusers layout."""
        networks = self.networks
        self._write_configs(folder)
        save_component(folder, "unet", networks.unet, dtype)
        if not isinstance(networks.vae, IdentityAutoencoder):
            save_component(folder, "vae", networks.vae, dtype)
        for name, encoder in zip(TEXT_ENCODERS, networks.encoders, strict=False):
            save_component(folder, name, encoder, dtype)

    def _write_configs(self, folder: Path) -> None:
        networks = self.networks
        if self.start.base:
            copy_configs(self.start.base, folder, networks.config)
            return
        empty = networks.tokenizers[0].encode("")
        end, pad = empty.ids[empty.end], empty.ids[-1]
        write_model_configs(folder, networks.config, end=end, pad=pad)
        room = networks.tokenizers[0].max_tokens
        copy_vocabulary(self.start.vocabularies[0], folder / "tokenizer", max_tokens=room)

    def preview(self, model: Path, picture: Path, held_out: Iterator[Batch]) -> None:
        """The recipe's prompts as the exported model draws them."""
        if not self.recipe.samples.prompts:
            return
        engine = self._engine(model)
        save_grid([made.image for made in engine.generate(self._request())], picture)

    def _engine(self, model: Path) -> Engine:
        """What the exported folder draws with."""
        return Engine.load(model, device=self.recipe.run.device)

    def _request(self) -> GenerateRequest:
        samples, (width, height) = self.recipe.samples, self.recipe.data.shape
        return GenerateRequest(
            prompts=samples.prompts or [""],
            seed=samples.seed,
            steps=samples.steps,
            guidance_scale=samples.guidance,
            batch_size=self.recipe.run.batch_size,
            width=width,
            height=height,
        )
