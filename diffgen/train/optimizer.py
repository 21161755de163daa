"""The optimizer that a recipe asks for, and its learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from diffgen.train.muon import Muon, hidden_weights
from diffgen.train.recipe.recipe import OptimizerRecipe


def make_optimizer(
    module: nn.Module, recipe: OptimizerRecipe, device: torch.device
) -> torch.optim.AdamW:
    """The optimizer of a recipe, over what learns in a module."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    options: dict[str, Any] = {
        "lr": recipe.lr,
        "betas": (recipe.beta1, recipe.beta2),
        "eps": recipe.eps,
        "weight_decay": recipe.weight_decay,
        "fused": device.type in ("cpu", "cuda"),
    }
    if recipe.kind == "muon":
        return Muon(parameters, hidden_weights(module), **options)
    return torch.optim.AdamW(parameters, **options)


def learning_rate(recipe: OptimizerRecipe, step: int, steps: int) -> float:
    """The rate of step 0 .. steps-1: linear warm-up, then constant, linear or half a cosine.

    The cosine is that of Loshchilov and Hutter, arXiv:1608.03983, eq. 5, without restarts.
    """
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    if recipe.decay == "constant":
        return recipe.lr
    progress = (step - recipe.warmup) / max(1, steps - recipe.warmup)
    left = 1.0 - progress if recipe.decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.lr * (recipe.final + (1.0 - recipe.final) * left)
