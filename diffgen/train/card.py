"""The model card: what a model was made of, so that it can be made again (arXiv:1810.03993)."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from diffgen import __version__
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.recipe.tables import to_toml


def hardware(device: torch.device, processes: int) -> str:
    """The machine in a few words."""
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else cores
    return chip if processes == 1 else f"{processes} processes, each on {chip}"


def commit() -> str:
    """The revision of the code if git knows one, else its version."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    revision = ""
    with suppress(OSError, subprocess.CalledProcessError):  # no git here, or no repository
        revision = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip()
    return f"diffgen {__version__}" + (f" ({revision})" if revision else "")


def write_card(folder: Path, recipe: Recipe, facts: Mapping[str, str]) -> None:
    """README.md of a model folder: facts as a table, then the whole recipe."""
    pipeline = "pipeline_tag: text-to-image\n" if recipe.target != "autoencoder" else ""
    rows = "".join(f"| {_cell(key)} | {_cell(value)} |\n" for key, value in facts.items())
    text = (
        f"---\nlicense: {recipe.license}\nlibrary_name: diffusers\n{pipeline}---\n\n"
        f"# {recipe.name}\n\nMade by `diffgen train`, target {recipe.target}.\n\n"
        f"| | |\n|---|---|\n{rows}\n"
        f"The recipe (`diffgen train recipe.toml` makes the model again):\n\n"
        f"```toml\n{to_toml(recipe)}```\n"
    )
    (folder / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")


def _cell(text: str) -> str:
    """Text escaped for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
