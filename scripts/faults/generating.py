"""Faults while pictures are made."""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

from common import (
    GENERATE,
    expect,
    expect_one_line,
    finish,
    killed,
    pictures_in,
    start,
    whole_pictures,
)


def kill_generate(folder: Path) -> str:
    """Killed at a random picture, generate leaves whole pictures only."""
    command = (*GENERATE, "-o", "out/", "-c", "8")
    ended = killed(folder, *command, progress=lambda: len(pictures_in(folder)), whole=16)
    whole = whole_pictures(folder)
    expect(ended or whole == 16, f"done with {whole} pictures of 16")
    return f"{'killed' if ended else 'done'}, every picture opens"


def full_disk(folder: Path) -> str:
    """No file may grow beyond 1000 bytes: one error line, and nothing half-written."""
    limit = (1000, 1000)
    process = start(
        folder,
        *GENERATE,
        "-o",
        "out/",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    expect_one_line(*finish(process), says="cannot write out/a-barn-1.png: File too large")
    expect(not list((folder / "out").iterdir()), "something was left in the folder")
    return "one line, nothing left"


def folder_gone(folder: Path) -> str:
    """The output folder is removed after the first picture: one error line."""
    process = start(folder, *GENERATE, "-o", "out/", "-c", "20")
    assert process.stdout
    process.stdout.readline()
    shutil.rmtree(folder / "out")
    expect_one_line(*finish(process), says="its folder is gone")
    return "one line"


def two_generate(folder: Path) -> str:
    """Two processes in one folder: no name is taken twice."""
    both = [start(folder, *GENERATE, "-q", "-c", "4") for _ in range(2)]
    said = [line for process in both for line in process.communicate(timeout=600)[0].split()]
    expect(all(process.returncode == 0 for process in both), "a process failed")
    expect(len(set(said)) == len(said) == 16, f"{len(set(said))} names for 16 pictures")
    expect(whole_pictures(folder) == 16, "not 16 pictures")
    return "16 names, 16 pictures"


def closed_stdout(folder: Path) -> str:
    """The reader of the results goes away after the first: one error line, whole pictures."""
    process = start(folder, *GENERATE, "-q", "-c", "20", stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr
    errors = process.stderr.read().decode()
    expect_one_line(process.wait(timeout=600), errors, says="its reader has gone away")
    return f"one line, {whole_pictures(folder)} whole pictures"
