"""The optimizer that a recipe asks for."""

from __future__ import annotations

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
