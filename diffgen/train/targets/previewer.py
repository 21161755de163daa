"""Previews of a run: the prompts of the recipe, drawn with the exported model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from diffgen.engine.engine import Engine
from diffgen.engine.request import GenerateRequest
from diffgen.train.data.dataset import Batch
from diffgen.train.export import save_grid
from diffgen.train.recipe.recipe import Recipe


class PromptPreviewer:
    """Draws a request in a grid, with the engine of an exported model; nothing without prompts."""

    def __init__(
        self, recipe: Recipe, request: GenerateRequest, engine: Callable[[Path], Engine]
    ) -> None:
        self.recipe, self.request, self.engine = recipe, request, engine

    def __call__(self, model: Path, picture: Path, held_out: Iterator[Batch]) -> None:
        """Draw the request's prompts with the model in a folder."""
        if not self.recipe.samples.prompts:
            return
        drawn = self.engine(model).generate(self.request)
        save_grid([made.image for made in drawn], picture)


def preview_request(recipe: Recipe) -> GenerateRequest:
    """What the samples of a recipe ask for; one picture at least, to be checked."""
    samples, (width, height) = recipe.samples, recipe.data.shape
    return GenerateRequest(
        prompts=samples.prompts or [""],
        seed=samples.seed,
        steps=samples.steps,
        guidance_scale=samples.guidance,
        batch_size=recipe.run.batch_size,
        width=width,
        height=height,
    )


def folder_engine(recipe: Recipe) -> Callable[[Path], Engine]:
    """Load an exported model folder on the device of the run."""
    return lambda model: Engine.load(model, device=recipe.run.device)
