"""Read a recipe: a TOML file, or a table, as a checked `Recipe`.

`diffgen train RECIPE.toml --set run.steps=100` and the file saved with each run go through the
same checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.train.recipe.checks import check_recipe, settled_lora
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.recipe.tables import Table, build, check_text, override, read_toml


def read_recipe(path: Path, assignments: Sequence[str] = ()) -> Recipe:
    """Read a file, with `key=value` overrides. Raises ConfigError, naming file and key."""
    return parse_recipe(override(read_toml(path), assignments), str(path))


def parse_recipe(table: Table, where: str) -> Recipe:
    """Check a table; `where` names it in errors. Raises ConfigError, UsageError for no text."""
    check_text(table, where)
    recipe = build(Recipe, table, where)
    recipe = replace(recipe, lora=settled_lora(recipe, where))
    check_recipe(recipe, where)
    return recipe
