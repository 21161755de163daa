"""The `distill` target: a trained model's few-step student, by latent consistency distillation.

Luo et al., arXiv:2310.04378, algorithm 1: noisy latents go one DDIM step along the guided teacher's
ODE, and the student learns to say the same of both ends. What it says of the nearer end comes from
a target network, its own moving average with decay mu = 0.95 as in the paper; mu = 0 takes the
student itself, without gradients, which saves a network's memory (Song and Dhariwal,
arXiv:2310.14189, section 3.2) but let small students that predict x0 diverge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from diffgen.diffusion.prediction import add_noise, predict_x0
from diffgen.diffusion.schedule import NoiseSchedule
from diffgen.diffusion.spacing import SpacingOptions, make_sigmas
from diffgen.engine.networks import Networks
from diffgen.engine.request import GenerateRequest
from diffgen.errors import ConfigError
from diffgen.models.build import build_empty
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.train.data.dataset import Batch
from diffgen.train.draws import Draws
from diffgen.train.recipe.recipe import DistillRecipe, Recipe
from diffgen.train.targets import consistency
from diffgen.train.targets.diffusion import DiffusionTarget
from diffgen.train.targets.networks import build_networks
from diffgen.train.targets.objectives import squared_error, uniform_timesteps
from diffgen.train.targets.text import encode, tokenize
from diffgen.types import Conditioning, ScheduleConfig
from diffgen.weights.diffusers.layout import write_lcm_configs

GUIDANCE_DIM = 256  # of LCM's published models
NEW_WEIGHT = "time_embedding.cond_proj.weight"


@dataclass(frozen=True, slots=True)
class Point:
    """States on the teacher's ODE: x (B, C, h, w), at timesteps t (B,), with alpha_bar (B,)."""

    x: Tensor
    t: Tensor
    alpha_bar: Tensor


@dataclass(frozen=True, slots=True)
class DistillInputs:
    """Two points on each ODE, one solver step apart, and what the student is told."""

    far: Point
    near: Point
    cond: Conditioning


class ConsistencyModule(nn.Module):
    """The student, the target network that follows it, and the loss.

    Without a target network the student is its own.
    """

    def __init__(
        self,
        unet: nn.Module,
        target: nn.Module | None,
        schedule: ScheduleConfig,
        recipe: DistillRecipe,
    ) -> None:
        super().__init__()
        self.unet, self.target, self.schedule, self.recipe = unet, target, schedule, recipe

    @torch.no_grad()
    def follow(self) -> None:
        """Let the target network take a step towards the student."""
        if self.target is not None:
            both = zip(self.target.parameters(), self.unet.parameters(), strict=True)
            learned = [(average, live.detach()) for average, live in both if live.requires_grad]
            averages, live = ([pair[k] for pair in learned] for k in (0, 1))
            torch._foreach_lerp_(averages, live, 1.0 - self.recipe.target_decay)

    def forward(self, inputs: DistillInputs) -> dict[str, Tensor]:
        """The distance between what the student says of both points, averaged over the batch."""
        # First the one with gradients: autocast keeps half-precision weights, and those cast
        # without gradients would pass none on to a student that is its own target.
        output = self._endpoint(self.unet, inputs.far, inputs.cond, clip=None)
        # Clipped as the sampler will; what learns is not, for a clipped value has no gradient.
        network = self.unet if self.target is None else self.target
        with torch.no_grad():
            target = self._endpoint(network, inputs.near, inputs.cond, clip=self.schedule.clip)
        if self.recipe.loss == "huber":
            error = consistency.pseudo_huber(output, target, self.recipe.huber_c)
        else:
            error = squared_error(output, target)
        return {"loss": error.mean()}

    def _endpoint(
        self, unet: nn.Module, point: Point, cond: Conditioning, *, clip: float | None
    ) -> Tensor:
        x, t = point.x, point.t
        output = unet(x, t, cond).float()
        x0 = predict_x0(output, x, point.alpha_bar, self.schedule.prediction, clip)
        return consistency.consistency_function(x, x0, t)


class DistillTarget(DiffusionTarget):
    """Distils `model.base`; exports a folder that `diffgen generate` runs with lcm."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        """Load the teacher and copy it.

        Raises what `build_networks` raises, and ConfigError for a base that is a student itself and
        for `ddim_steps` that the sampler's timesteps are not among.
        """
        start = build_networks(recipe)
        teacher = start.networks
        self.timesteps = _timesteps(recipe.distill, teacher.config.schedule)
        super().__init__(recipe, device, replace(start, networks=_student(teacher, recipe)))
        self.teacher = teacher.unet.to(device).requires_grad_(False).eval()
        schedule = self.networks.config.schedule
        unet, target = self.networks.unet, None
        if recipe.distill.target_decay:
            target = _network(unet.config, unet.state_dict()).requires_grad_(False)
        self.student = ConsistencyModule(unet, target, schedule, recipe.distill)
        self.module = self.student
        if recipe.run.compile:
            for network in filter(None, (self.teacher, target)):
                network.compile()
        # As the teacher's own DDIM: on to the data, or to the first table entry.
        self.final = self.alphas_cumprod[0] if schedule.final_alpha_one is False else 1.0

    @torch.no_grad()
    def inputs(self, batch: Batch, draws: Draws) -> DistillInputs:
        """Noisy latents, and where one step of the guided teacher takes them."""
        far, near_t, near_alpha_bar = self._noisy(batch, draws)
        both = self._texts(batch)
        cond = both.map(lambda tensor: tensor[: len(batch.captions)])
        scale = self._guidance(draws)
        x0 = self._teach(far, both, scale)
        x = consistency.ddim_step(far.x, x0, far.alpha_bar, near_alpha_bar)
        if self.networks.config.embeds_guidance:
            cond = replace(cond, guidance=scale)
        return DistillInputs(far, Point(x, near_t, near_alpha_bar), cond)

    def stepped(self) -> None:
        """The target network follows the student."""
        self.student.follow()

    def _noisy(self, batch: Batch, draws: Draws) -> tuple[Point, Tensor, Tensor]:
        """States at random timesteps of the grid, with t and alpha_bar of the ones below."""
        steps = torch.tensor([0, *self.timesteps], device=self.device)
        levels = self.alphas_cumprod[steps]
        levels[0] = self.final
        index = uniform_timesteps(draws.uniform(), len(self.timesteps))
        x0 = self._latents(batch, draws)
        alpha_bar = levels[index + 1]
        x = add_noise(x0, draws.normal(x0.shape[1:]), alpha_bar)
        return Point(x, steps[index + 1], alpha_bar), steps[index], levels[index]

    def _guidance(self, draws: Draws) -> Tensor:
        """The guidance scale of each picture: (B,)."""
        guidance, u = self.recipe.distill.guidance, draws.uniform()
        low, high = guidance if isinstance(guidance, tuple) else (guidance, guidance)
        return low + (high - low) * u

    def _texts(self, batch: Batch) -> Conditioning:
        """The conditioning of the captions, then that of as many empty ones: 2 B rows."""
        networks, count = self.networks, len(batch.captions)
        tokens = tokenize(networks.tokenizers, [*batch.captions, *[""] * count], self.device)
        time_ids = torch.tensor(batch.time_ids, dtype=torch.float32, device=self.device)
        return encode(networks.config, networks.encoders, tokens, time_ids.repeat(2, 1))

    def _teach(self, point: Point, both: Conditioning, scale: Tensor) -> Tensor:
        """The guided teacher's x0: (B, C, h, w)."""
        x, t = point.x, point.t
        outputs = self.teacher(torch.cat([x, x]), torch.cat([t, t]), both).float()
        cond, uncond = outputs.chunk(2)
        output = consistency.guided(cond, uncond, scale)
        schedule = self.networks.config.schedule
        return predict_x0(output, x, point.alpha_bar, schedule.prediction, schedule.clip)

    def _write_configs(self, folder: Path) -> None:
        super()._write_configs(folder)
        write_lcm_configs(
            folder,
            self.networks.config,
            timestep_scaling=consistency.TIMESTEP_SCALING,
        )

    def _request(self) -> GenerateRequest:
        """The student's own defaults, but for the guidance that it is told."""
        embedded = self.networks.config.embeds_guidance
        guidance = self.recipe.samples.guidance if embedded else None
        return replace(super()._request(), guidance_scale=guidance)


def _network(config: UNetConfig, state: Mapping[str, Tensor]) -> UNet:
    """A U-Net with copies of these weights."""
    unet = build_empty(UNet, config)
    copies = {name: tensor.clone() for name, tensor in state.items()}
    unet.load_state_dict(copies, assign=True)
    return unet


def _student(teacher: Networks, recipe: Recipe) -> Networks:
    """The teacher's networks with a copy of its U-Net, which may be told the guidance scale.

    The new projection of the scale begins at 0: the student begins as the teacher.
    """
    config, state = teacher.config, dict(teacher.unet.state_dict())
    if config.embeds_guidance:
        raise ConfigError(
            f"model.base {recipe.model.base} was distilled already; name the model it was made "
            "from."
        )
    unet_config = config.unet
    if isinstance(recipe.distill.guidance, tuple):
        unet_config = replace(unet_config, guidance_dim=GUIDANCE_DIM)
        state[NEW_WEIGHT] = torch.zeros(unet_config.channels[0], GUIDANCE_DIM)
    steps = min(consistency.SAMPLER_STEPS, config.schedule.num_train_timesteps)
    schedule = replace(config.schedule, sampler="lcm", distilled_steps=steps)
    config = replace(config, unet=unet_config, schedule=schedule)
    return replace(teacher, config=config, unet=_network(unet_config, state))


def _timesteps(recipe: DistillRecipe, schedule: ScheduleConfig) -> Sequence[int]:
    """The timesteps to learn on, which those of the sampler must be among."""
    tables = NoiseSchedule.from_config(schedule)
    count = tables.num_train_timesteps
    timesteps = consistency.distillation_timesteps(count, recipe.ddim_steps)
    steps = min(consistency.SAMPLER_STEPS, count)
    sampled = make_sigmas("lcm", tables, steps, SpacingOptions())[:-1]
    if not {tables.sigmas[t] for t in timesteps}.issuperset(sampled):
        raise ConfigError(
            f"distill.ddim_steps = {recipe.ddim_steps} leaves out timesteps that the lcm sampler "
            f"uses; take {steps} or a multiple of it that divides {count}."
        )
    return timesteps
