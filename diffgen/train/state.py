"""Checkpoints of a run: written atomically, and refused for another run."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffgen.errors import ConfigError, OutputError, UsageError, WeightsError
from diffgen.files import replaced
from diffgen.train.recipe.recipe import Recipe
from diffgen.train.recipe.tables import differences
from diffgen.train.sources import changed_sources, same_sources

NAME = re.compile(r"step-(\d+)\.pt")
WRITTEN = {
    "step",
    "recipe",
    "data",
    "module",
    "ema",
    "optimizer",
    "scaler",
    "rng",
}  # by every version

# What may differ between a run and its continuation. FREE changes no number but by the length of the
# run, which the learning rate follows; what the data hold is compared by itself. What is MEANT changes
# numbers, but nobody changes it by mistake; it is said.
FREE = (
    "data.path",
    "data.cache",
    "data.workers",
    "run.device",
    "run.steps",
    "run.parallel",
    "run.log_every",
    "run.checkpoint_every",
    "run.checkpoint_minutes",
    "run.validate_every",
    "run.keep_last",
    "run.keep_every",
    "run.save_dtype",
    "run.compile",
    "run.channels_last",
    "run.gradient_checkpointing",
    "samples.",
    "name",
    "license",
)
MEANT = ("optimizer.", "run.batch_size", "run.accumulate")
FIXED = ("optimizer.kind",)


def rng_state() -> dict[str, Any]:
    """The global generators of this process."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def set_rng_state(state: dict[str, Any]) -> None:
    """The inverse of `rng_state`."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by step, ascending."""
    found = {int(m[1]): p for p in folder.glob("step-*.pt") if (m := NAME.fullmatch(p.name))}
    return dict(sorted(found.items()))


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of a step, atomically and durably.

    Raises OutputError, naming the last good checkpoint, when the disk is full or fails.
    """
    path = folder / f"step-{step:08d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(path, durable=True) as part, part.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch turns a failed write into RuntimeError
        raise OutputError(f"cannot write {path}: {_reason(error)}; {last_good(folder)}") from error
    return path


def last_good(folder: Path) -> str:
    """How to continue a run that failed, as the end of an error line."""
    kept = list(checkpoints(folder).values())
    if not kept:
        return "there is no checkpoint yet, so start it again"
    return f"go on with --resume, from {kept[-1]}"


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]


def prune(folder: Path, *, keep_last: int, keep_every: int) -> None:
    """Delete all but the last few and those whose step divides by `keep_every`."""
    found = checkpoints(folder)
    for step in list(found)[:-keep_last]:
        if not keep_every or step % keep_every:
            found[step].unlink()


def load_last(folder: Path) -> dict[str, Any]:
    """The newest checkpoint. Raises UsageError if there is none, WeightsError if it is damaged."""
    found = checkpoints(folder)
    if not found:
        raise UsageError(f"{folder} has no checkpoint to resume from; start without --resume")
    *earlier, path = found.values()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path} is damaged; {_without(path, earlier)}") from error
    if not isinstance(state, dict) or not state.keys() >= WRITTEN:
        raise WeightsError(f"{path} is no checkpoint of a run; {_without(path, earlier)}")
    return state


def _without(path: Path, earlier: Sequence[Path]) -> str:
    if not earlier:
        return "there is no other, so start a new run with another -o"
    return f"delete it to resume from the one before, {earlier[-1].name}"


def check_same(
    saved: Recipe,
    recipe: Recipe,
    *,
    data: tuple[str, str],
    world: tuple[int, int],
    sources: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> list[str]:
    """Refuse a continuation that would not be one; `data`, `world`, `sources` are (saved, present).

    `sources` are hashes of the files behind keys of the recipe: they may lie elsewhere, unchanged.
    Returns what differs on purpose. Raises ConfigError saying what else does.
    """
    free = (*FREE, *(f"{key}:" for key in same_sources(*sources)))
    found = [d for d in differences(saved, recipe) if not d.startswith(free)]
    meant = [d for d in found if d.startswith(MEANT) and not d.startswith(FIXED)]
    changed = [d for d in found if d not in meant]
    changed += [f"the files of {key} have changed" for key in changed_sources(*sources)]
    if data[0] != data[1]:
        changed.append("the data has changed")
    if world[0] != world[1]:
        changed.append(f"processes: {world[0]} -> {world[1]}")
    if changed:
        raise ConfigError(
            f"the checkpoint belongs to another recipe: {'; '.join(changed)}; "
            "restore these or start a new run with another -o"
        )
    return meant
