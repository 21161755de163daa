"""The current command as a line to paste."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from diffgen.settings.setting import Row, each_row


def command_line(
    *more: str,
    without: str | None = None,
    groups: Sequence[type] = (),
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    launcher: Sequence[str] | None = None,
) -> str:
    """This command again, quoted for a shell, with `more` options that it does not have yet.

    The flag `without` is dropped as an option, but not as the value of one of the `groups` of
    settings, nor after `--`. `launcher` are the words of the parent program, by default read from
    the system.
    """
    program, *given = sys.argv if arguments is None else arguments
    takers = {flag for row in each_row(*groups) if row.kind is not bool for flag in _flags(row)}
    options, rest = _divided(given, takers)
    flags = {word for word, is_value in options if not is_value}
    kept = [word for word, is_value in options if is_value or word != without]
    words = [*kept, *(option for option in more if option not in flags), *rest]
    start = _launched(given, environment, launcher) or _start(Path(program), environment)
    return shlex.join([*start, *words])


def _flags(row: Row) -> list[str]:
    return row.setting.flags.split()


def _divided(
    given: Sequence[str], takers: Collection[str]
) -> tuple[list[tuple[str, bool]], Sequence[str]]:
    """The words before `--` and whether each is the value of one of `takers`; and the rest."""
    options: list[tuple[str, bool]] = []
    is_value = False
    for place, word in enumerate(given):
        if word == "--" and not is_value:
            return options, given[place:]
        options.append((word, is_value))
        is_value = not is_value and word in takers
    return options, ()


def _launched(
    given: list[str], environment: Mapping[str, str], launcher: Sequence[str] | None
) -> list[str]:
    """The torchrun command that started this one, with its options; empty if unknown."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return []
    words = list(_parent() if launcher is None else launcher)
    before = len(words) - len(given)
    if before < 2 or words[before:] != given:
        return []
    # A script's interpreter was not typed.
    script = Path(words[1]).name
    return [script, *words[2:before]] if script == "torchrun" else words[:before]


def _parent() -> list[str]:
    """The command line of the parent process; empty if the system does not tell."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [os.fsdecode(word) for word in words[:-1]]


def _start(program: Path, environment: Mapping[str, str]) -> list[str]:
    """The words before the arguments: diffgen, a module of Python, or torchrun."""
    if "TORCHELASTIC_RUN_ID" in environment:
        processes = ["--nproc-per-node", environment.get("LOCAL_WORLD_SIZE", "1")]
        return ["torchrun", *_nodes(environment), *processes, "-m", "diffgen"]
    if program.name == "__main__.py":
        return [sys.executable, "-m", "diffgen"]
    found = shutil.which(program.name)
    return [program.name if found and Path(found).resolve() == program.resolve() else str(program)]


def _nodes(environment: Mapping[str, str]) -> list[str]:
    """torchrun's options for this machine among several, without a rendezvous."""
    count = environment.get("GROUP_WORLD_SIZE", "1")
    if count == "1":
        return []
    own = {
        "--node-rank": "GROUP_RANK",
        "--master-addr": "MASTER_ADDR",
        "--master-port": "MASTER_PORT",
    }
    known = {option: environment[name] for option, name in own.items() if name in environment}
    return ["--nnodes", count, *(word for pair in known.items() for word in pair)]
