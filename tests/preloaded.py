"""Where torch and diffgen are imported already: forks a process for every command it is told of.

Run by programs.py, which is the other end of the socket at stdin.
"""

import gc
import json
import os
import runpy
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

# What commands import that do something, whether at their beginning or on their way.
IMPORTED = (
    *("diffgen.cli", "diffgen.batch.run", "diffgen.batch.session", "diffgen.engine.reading"),
    *("diffgen.bench.session", "diffgen.train.run"),
    *("PIL.PngImagePlugin", "matplotlib.backends.backend_agg", "pydantic.type_adapter"),
)
LARGEST = 1 << 18  # bytes of a command with its environment
FILES = 4  # stdin, stdout, stderr, and the socket to tell of the end


def forked(asked: socket.socket) -> dict[str, Any] | None:
    """The command that this process is to be; None in the first one, when nobody asks any more."""
    while True:
        message, files, *_ = socket.recv_fds(asked, LARGEST, FILES)
        if not message:
            return None
        if not os.fork():
            if child := os.fork():
                watch(child, files)
            asked.close()
            take(files)
            return dict(json.loads(message))
        for file in files:
            os.close(file)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def watch(child: int, files: list[int]) -> None:
    """Tell the number of a process and how it ends; it is the number of no other until then."""
    for file in files[:-1]:
        os.close(file)
    with socket.socket(fileno=files[-1]) as told:
        told.send(b"%d" % child)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert ended
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        told.send(b"%d" % code)
        told.recv(1)
    os.waitpid(child, 0)
    os._exit(0)


def take(files: list[int]) -> None:
    """Make files the standard streams, as an interpreter does that starts with them."""
    for number, file in enumerate(files[:-1]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        stream = open(  # noqa: SIM115 - it stays open
            number,
            "w" if number else "r",
            buffering=1 if number == 2 else -1,
            encoding=old.encoding,
            errors=old.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def become(command: dict[str, Any]) -> None:
    """Run `python -m diffgen` in a folder, with an environment."""
    os.environ.clear()
    os.environ.update(command["env"])
    os.chdir(command["cwd"])
    sys.argv = ["", *command["words"]]
    runpy.run_module("diffgen", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(name)
    gc.freeze()
    command = forked(socket.socket(fileno=os.dup(0)))
    if command:
        become(command)
