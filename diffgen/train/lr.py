"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from diffgen.train.recipe.recipe import OptimizerRecipe


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
