"""The `distill` target: a trained model's few-step student, by latent consistency distillation.

Luo et al., arXiv:2310.04378, algorithm 1: noisy latents go one DDIM step along the guided teacher's
ODE, and the student learns to predict the same x0 from both ends. The prediction at the nearer end is
that of a target network, its own moving average with decay mu = 0.95 as in the paper; mu = 0 takes the
student itself, without gradients, which saves a network's memory (Song and Dhariwal,
arXiv:2310.14189, section 3.2) but small students that predict x0 diverge with it.
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
from diffgen.engine.plan import GeneratePlan
from diffgen.engine.request import GenerateRequest
from diffgen.errors import ConfigError
from diffgen.models.build import build_empty, unet_of
from diffgen.models.config import ModelConfig
from diffgen.models.unet import UNet
from diffgen.train.data.dataset import Batch
from diffgen.train.draws import Draws
from diffgen.train.recipe.recipe import DistillRecipe, Recipe
from diffgen.train.targets import consistency
from diffgen.train.targets.encoding import Latents, size_ids
from diffgen.train.targets.exporter import FolderExporter
from diffgen.train.targets.lora import (
    AdapterExporter,
    AdapterModule,
    adapt,
    adapted_engine,
    all_adapters,
    use_channels_last,
)
from diffgen.train.targets.networks import build_networks, place_frozen
from diffgen.train.targets.objectives import squared_error, uniform_timesteps
from diffgen.train.targets.previewer import PromptPreviewer, folder_engine, preview_request
from diffgen.train.targets.target import Target
from diffgen.train.targets.text import encode, tokenize
from diffgen.types import Conditioning, NoiseConfig
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
    """Two points on each ODE, one solver step apart, and the student's conditioning."""

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
        schedule: NoiseConfig,
        recipe: DistillRecipe,
    ) -> None:
        super().__init__()
        self.unet, self.target, self.schedule, self.recipe = unet, target, schedule, recipe

    @torch.no_grad()
    def follow(self) -> None:
        """Move the target network towards the student."""
        if self.target is not None:
            both = zip(self.target.parameters(), self.unet.parameters(), strict=True)
            learned = [(average, live.detach()) for average, live in both if live.requires_grad]
            averages, live = ([pair[k] for pair in learned] for k in (0, 1))
            torch._foreach_lerp_(averages, live, 1.0 - self.recipe.target_decay)

    def forward(self, inputs: DistillInputs) -> dict[str, Tensor]:
        """The distance between the predictions at both points, averaged over the batch."""
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


class DistillBatches:
    """Noisy latents of a batch, and where one step of the guided teacher takes them."""

    def __init__(
        self, recipe: Recipe, config: ModelConfig, teacher: Networks, latents: Latents
    ) -> None:
        """`config` is the student's; raises ConfigError for `ddim_steps` that the sampler skips."""
        self.recipe, self.config, self.networks = recipe.distill, config, teacher
        self.latents, self.device = latents, latents.device
        self.teacher = teacher.unet
        self.timesteps = _timesteps(recipe.distill, teacher.config.schedule)
        tables = NoiseSchedule.from_config(config.schedule)
        self.alphas_cumprod = torch.tensor(tables.alphas_cumprod, device=self.device)
        self.steps = torch.tensor([0, *self.timesteps], device=self.device)
        self.levels = self.alphas_cumprod[self.steps]
        # As the teacher's own DDIM: on to the data, or to the first table entry.
        stays = config.schedule.final_alpha_one is False
        self.levels[0] = self.alphas_cumprod[0] if stays else 1.0

    @torch.no_grad()
    def __call__(self, batch: Batch, draws: Draws) -> DistillInputs:
        """Two points on the teacher's ODE, and the conditioning of the student."""
        far, near_t, near_alpha_bar = self._noisy(batch, draws)
        both = self._texts(batch)
        cond = both.map(lambda tensor: tensor[: len(batch.captions)])
        scale = self._guidance(draws)
        x0 = self._teach(far, both, scale)
        x = consistency.ddim_step(far.x, x0, far.alpha_bar, near_alpha_bar)
        if self.config.embeds_guidance:
            cond = replace(cond, guidance=scale)
        return DistillInputs(far, Point(x, near_t, near_alpha_bar), cond)

    def _noisy(self, batch: Batch, draws: Draws) -> tuple[Point, Tensor, Tensor]:
        """States at random timesteps of the grid, with t and alpha_bar of the ones below."""
        steps, levels = self.steps, self.levels
        index = uniform_timesteps(draws.uniform(), len(self.timesteps))
        x0 = self.latents.of(batch, draws)
        alpha_bar = levels[index + 1]
        x = add_noise(x0, draws.normal(x0.shape[1:]), alpha_bar)
        return Point(x, steps[index + 1], alpha_bar), steps[index], levels[index]

    def _guidance(self, draws: Draws) -> Tensor:
        """The guidance scale of each picture: (B,)."""
        guidance, u = self.recipe.guidance, draws.uniform()
        low, high = guidance if isinstance(guidance, tuple) else (guidance, guidance)
        return low + (high - low) * u

    def _texts(self, batch: Batch) -> Conditioning:
        """The conditioning of the captions, then that of as many empty ones: 2 B rows."""
        networks, count = self.networks, len(batch.captions)
        tokens = tokenize(networks.tokenizers, [*batch.captions, *[""] * count], self.device)
        time_ids = size_ids(batch, self.device)
        return encode(networks.config, networks.encoders, tokens, time_ids.repeat(2, 1))

    def _teach(self, point: Point, both: Conditioning, scale: Tensor) -> Tensor:
        """The guided teacher's x0: (B, C, h, w)."""
        x, t = point.x, point.t
        outputs = self.teacher(torch.cat([x, x]), torch.cat([t, t]), both).float()
        cond, uncond = outputs.chunk(2)
        output = consistency.guided(cond, uncond, scale)
        schedule = self.config.schedule
        return predict_x0(output, x, point.alpha_bar, schedule.prediction, schedule.clip)


def distill_target(recipe: Recipe, device: torch.device) -> Target:
    """Distil `model.base`: into a model, or into adapters with `distill.as_lora` (LCM-LoRA).

    LCM-LoRA: Luo et al., arXiv:2311.05556. Raises what `build_networks` and `adapt` raise, and
    ConfigError for a base that is a student itself and for `ddim_steps` that the sampler's
    timesteps are not among.
    """
    start = build_networks(recipe)
    student = replace(start, networks=_student(start.networks, recipe))
    config, request = student.networks.config, _request(recipe, student.networks.config)
    exporter = FolderExporter(student, _amend)
    if not recipe.distill.as_lora:
        exporter.check()
    GeneratePlan.make(request, config)
    latents = Latents(recipe, start.networks, device)
    inputs = DistillBatches(recipe, config, start.networks, latents)
    place_frozen(student.networks, recipe, device)
    start.networks.unet.to(device).requires_grad_(False).eval()
    learner = _learner(recipe, student.networks)
    if recipe.run.compile:
        for network in filter(None, (inputs.teacher, learner.target)):
            network.compile()
    whole = Target(
        module=learner,
        inputs=inputs,
        export=exporter,
        preview=PromptPreviewer(recipe, request, folder_engine(recipe)),
        tokenizers=start.networks.tokenizers,
        latent_encoder=latents,
        stepped=learner.follow,
    )
    return _with_adapters(recipe, whole, learner, config) if recipe.distill.as_lora else whole


def _learner(recipe: Recipe, student: Networks) -> ConsistencyModule:
    """The student, with a target network unless `target_decay` is 0."""
    unet, target = student.unet.requires_grad_(True), None
    if recipe.distill.target_decay:
        target = _filled(build_empty(UNet, unet.config), unet.state_dict()).requires_grad_(False)
    return ConsistencyModule(unet, target, student.config.schedule, recipe.distill)


def _with_adapters(
    recipe: Recipe, whole: Target, learner: ConsistencyModule, config: ModelConfig
) -> Target:
    """The same target with adapters as the student and in its target network."""
    adapters = adapt(recipe, {"unet": learner.unet})
    parts = all_adapters(adapters)
    if learner.target is not None:
        # One seed makes them begin equal.
        followers = all_adapters(adapt(recipe, {"unet": learner.target}))
        parts = parts + [follower.requires_grad_(False) for follower in followers]
    use_channels_last(recipe, learner)
    # The base does not ask for lcm by itself.
    request = replace(_request(recipe, config), sampler="lcm")
    return replace(
        whole,
        module=AdapterModule(parts, learner),
        export=AdapterExporter(recipe, config, adapters),
        preview=PromptPreviewer(recipe, request, adapted_engine(recipe)),
    )


def _amend(folder: Path, config: ModelConfig) -> None:
    write_lcm_configs(folder, config, timestep_scaling=consistency.TIMESTEP_SCALING)


def _request(recipe: Recipe, config: ModelConfig) -> GenerateRequest:
    """The student's own defaults, but for the guidance where it is told one."""
    guidance = recipe.samples.guidance if config.embeds_guidance else None
    return replace(preview_request(recipe), guidance_scale=guidance)


def _filled(unet: UNet, state: Mapping[str, Tensor]) -> UNet:
    """An empty U-Net with copies of these weights."""
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
            f"model.base {recipe.model.base} was distilled already; name the model it was made from"
        )
    if isinstance(recipe.distill.guidance, tuple):
        config = config.embedding_guidance(GUIDANCE_DIM)
        width = teacher.unet.time_embedding.linear_1.in_features
        state[NEW_WEIGHT] = torch.zeros(width, GUIDANCE_DIM)
    steps = min(consistency.SAMPLER_STEPS, config.schedule.num_train_timesteps)
    schedule = replace(config.schedule, sampler="lcm", distilled_steps=steps)
    config = replace(config, schedule=schedule)
    return replace(teacher, config=config, unet=_filled(build_empty(unet_of, config), state))


def _timesteps(recipe: DistillRecipe, schedule: NoiseConfig) -> Sequence[int]:
    """The timesteps to learn on, which those of the sampler must be among."""
    tables = NoiseSchedule.from_config(schedule)
    count = tables.num_train_timesteps
    timesteps = consistency.distillation_timesteps(count, recipe.ddim_steps)
    steps = min(consistency.SAMPLER_STEPS, count)
    sampled = make_sigmas("lcm", tables, steps, SpacingOptions())[:-1]
    if not {tables.sigmas[t] for t in timesteps}.issuperset(sampled):
        raise ConfigError(
            f"distill.ddim_steps = {recipe.ddim_steps} leaves out timesteps that the lcm sampler "
            f"uses; take {steps} or a multiple of it that divides {count}"
        )
    return timesteps
