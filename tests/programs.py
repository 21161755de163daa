"""`diffgen` as a process of its own, without the two seconds that its imports take.

Folder, environment, standard streams, signals and exit code are those of `python -m diffgen`. What
happens before a command is read needs a fresh interpreter: what is imported, `PYTHON...` variables,
streams that are closed, threads.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300.0  # seconds; on a machine with much else to do everything takes long
Stream = IO[str] | IO[bytes] | int | None
SERVED = sys.platform == "linux"  # elsewhere, frameworks that torch loads may not survive a fork


@cache
def _server() -> socket.socket:
    """The socket to a process that forks those asked for."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("preloaded.py"))],
            stdin=theirs,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,  # Ctrl-C is for the tests
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class Program:
    """What subprocess.Popen is for `python -m diffgen WORDS`, with text in its pipes."""

    def __init__(
        self,
        *words: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> None:
        self.returncode: int | None = None
        self._told, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends = [_ends(stream, number) for number, stream in enumerate((stdin, stdout, stderr))]
        command = {"words": words, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        files = [*(theirs for theirs, _ in ends), told.fileno()]
        socket.send_fds(_server(), [json.dumps(command).encode()], files)
        told.close()
        for theirs, ours in ends:
            if ours is not None:
                os.close(theirs)
        self.stdin, self.stdout, self.stderr = (
            None if ours is None else os.fdopen(ours, "r" if number else "w", encoding="utf-8")
            for number, (_, ours) in enumerate(ends)
        )
        self.pid = int(self._told.recv(32))

    def poll(self) -> int | None:
        """The exit code, the negative number of the signal that ended it, or None."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float = PATIENCE) -> int:
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(32))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("diffgen", timeout) from None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """What is left to read of stdout and stderr, at its end."""
        if self.stdin:
            self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            texts = pool.map(lambda pipe: pipe.read() if pipe else "", (self.stdout, self.stderr))
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            out, err = texts
        return out, err

    def close(self) -> None:
        """Kill it if it runs, and let go of it."""
        self.kill()
        self.wait()
        self._told.close()
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Process = Program | subprocess.Popen[str]


def start(
    *words: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
    **streams: Stream,
) -> Process:
    """Start `python -m diffgen WORDS`, in a `fresh` interpreter where that matters."""
    if SERVED and not fresh:
        return Program(*words, cwd=cwd, env=env, **streams)
    known = dict(os.environ if env is None else env) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "diffgen", *words]
    return subprocess.Popen(command, cwd=cwd, env=known, text=True, **streams)


def _ends(stream: Stream, number: int) -> tuple[int, int | None]:
    """The program's end of a stream, and ours where it is a pipe."""
    if stream is None:
        return number, None
    if stream == subprocess.PIPE:
        reader, writer = os.pipe()
        return (writer, reader) if number else (reader, writer)
    if stream == subprocess.DEVNULL:
        return _nothing(), None
    return stream if isinstance(stream, int) else stream.fileno(), None


@cache
def _nothing() -> int:
    return os.open(os.devnull, os.O_RDWR)
