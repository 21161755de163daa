"""The `distill` target with adapters as the student: LCM-LoRA (Luo et al., arXiv:2311.05556)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from diffgen.engine.engine import Engine
from diffgen.engine.request import GenerateRequest
from diffgen.models.lora import Adapter
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.targets.distill import DistillTarget
from diffgen.train.targets.lora import LoraModule, adapt, adapted_engine, save_adapters


class DistillLoraTarget(DistillTarget):
    """Distils `model.base` into adapters for it; exports the file that the lora target does.

    `diffgen generate -m BASE --lora FILE --sampler lcm` draws with it.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        """Load the base and put adapters into two copies of it, the student and its target network.

        Raises what `DistillTarget` raises, and ConfigError for `lora.modules` that name nothing.
        """
        super().__init__(recipe, device)
        self.adapters = adapt(recipe, {"unet": self.student.unet})
        parts: list[Adapter] = [*self.adapters["unet"].values()]
        if self.student.target is not None:
            # One seed makes them begin equal.
            followers = adapt(recipe, {"unet": self.student.target})["unet"].values()
            parts += [follower.requires_grad_(False) for follower in followers]
        self.student.to(device)
        if recipe.run.channels_last:
            self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
        self.module = LoraModule(parts, self.student)

    def export(self, folder: Path, dtype: torch.dtype) -> None:
        """The student's adapters as one safetensors file."""
        save_adapters(folder, self.adapters, self.recipe, self.networks.config, dtype)

    def _write_configs(self, folder: Path) -> None:
        """None: the base, which may be one file, keeps its own."""

    def _engine(self, model: Path) -> Engine:
        return adapted_engine(self.recipe, model)

    def _request(self) -> GenerateRequest:
        """With lcm, which the base does not ask for by itself."""
        return replace(super()._request(), sampler="lcm")


def distill_target(recipe: Recipe, device: torch.device) -> DistillTarget:
    """The whole student, or adapters. Raises what they raise."""
    kind = DistillLoraTarget if recipe.distill.as_lora else DistillTarget
    return kind(recipe, device)
