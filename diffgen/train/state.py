"""Checkpoints of a run: written whole or not at all, and refused where they do not belong."""

from __future__ import annotations

import contextlib
import os
import random
import re
from pathlib import Path
from typing import Any

import torch

from diffgen.errors import ConfigError, OutputError, UsageError, WeightsError
from diffgen.train.recipe import Recipe
from diffgen.train.tables import differences

NAME = re.compile(r"step-(\d+)\.pt")

# What may differ between a run and its continuation: nothing that changes the numbers but its
# length, which the learning rate follows from there on.
FREE = (
    "data.workers",
    "run.device",
    "run.steps",
    "run.parallel",
    "run.log_every",
    "run.checkpoint_every",
    "run.validate_every",
    "run.keep_last",
    "run.keep_every",
    "run.save_dtype",
    "samples.",
    "name",
    "license",
)


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
    """Those in a folder by step, ascending."""
    found = {int(m[1]): p for p in folder.glob("step-*.pt") if (m := NAME.fullmatch(p.name))}
    return dict(sorted(found.items()))


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of a step: temporary name, fsync, rename.

    Raises OutputError, naming the last good checkpoint, when the disk is full or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    new = path.with_suffix(".tmp")
    try:
        with new.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch turns a failed write into RuntimeError
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        kept = list(checkpoints(folder).values())
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no earlier one"
        raise OutputError(
            f"cannot write {path}: {_reason(error)}; free some space and go on with --resume; {last}"
        ) from error
    return path


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]


def _sync_folder(folder: Path) -> None:
    """Make the rename itself outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        raise UsageError(f"{folder} has no checkpoint to resume from; start without --resume.")
    path = list(found.values())[-1]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(
            f"{path} is damaged; delete it to resume from the checkpoint before."
        ) from error
    assert isinstance(state, dict)
    return state


def check_same(
    saved: Recipe, recipe: Recipe, *, data: tuple[str, str], world: tuple[int, int]
) -> None:
    """Refuse a continuation that would not be one; `data` and `world` are (saved, present).

    Raises ConfigError saying what differs.
    """
    changed = [d for d in differences(saved, recipe) if not d.startswith(FREE)]
    if data[0] != data[1]:
        changed.append("the data has changed")
    if world[0] != world[1]:
        changed.append(f"processes: {world[0]} -> {world[1]}")
    if changed:
        raise ConfigError(
            f"the checkpoint belongs to another recipe: {'; '.join(changed)}; "
            "restore these or start a new run with another -o."
        )
