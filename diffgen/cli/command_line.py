"""The command that was given, as a line to paste."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def command_line(
    *more: str,
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """This command again, quoted for a shell, with `more` options that it does not have yet."""
    program, *given = sys.argv if arguments is None else arguments
    added = [option for option in more if option not in given]
    return shlex.join([*_start(Path(program), environment), *given, *added])


def _start(program: Path, environment: Mapping[str, str]) -> list[str]:
    """The words before the arguments: diffgen, a module of Python, or torchrun."""
    if "TORCHELASTIC_RUN_ID" in environment:
        nodes = environment.get("GROUP_WORLD_SIZE", "1")
        several = [] if nodes == "1" else ["--nnodes", nodes]
        processes = environment.get("LOCAL_WORLD_SIZE", "1")
        return ["torchrun", *several, "--nproc-per-node", processes, "-m", "diffgen"]
    if program.name == "__main__.py":
        return [sys.executable, "-m", "diffgen"]
    found = shutil.which(program.name)
    return [program.name if found and Path(found).resolve() == program.resolve() else str(program)]
