"""Faults while pictures are made."""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from common import (
    GENERATE,
    expect,
    expect_one_line,
    finish,
    killed,
    lines_of,
    pictures_in,
    run,
    start,
    whole_pictures,
)
from PIL import Image

# Levels between pictures that were made with other neighbours: what is left of a batch of two after
# a kill may be one, and in bf16 that was 3 levels away.
ROUNDING = 4
BATCH = ("generate", "--prompts", "prompts.txt", "-o", "out/", "--batch-size", "2")


def kill_generate(folder: Path) -> str:
    """Killed at a random picture, generate leaves whole pictures only."""
    command = (*GENERATE, "-o", "out/", "-c", "8")
    ended = killed(folder, *command, progress=lambda: len(pictures_in(folder)), whole=16)
    whole = whole_pictures(folder)
    expect(ended or whole == 16, f"done with {whole} pictures of 16")
    return f"{'killed' if ended else 'done'}, every picture opens"


def kill_batch(folder: Path) -> str:
    """Killed at a random line of its journal and started again, a file of prompts is made whole."""
    pictures, lines = _undisturbed()
    journal = _prepare(folder)
    ended = killed(folder, *BATCH, progress=lambda: lines_of(journal), whole=lines)
    there = {path: path.stat().st_mtime_ns for path in pictures_in(folder)}
    expect(whole_pictures(folder) == len(there), "a picture came after the kill")
    code, errors = finish(start(folder, *BATCH, stdout=subprocess.DEVNULL))
    counted = f"{len(pictures) - len(there)} made, 0 failed, {len(there)} skipped"
    expect(code == 0 and counted in errors, f"not {counted}, exit code {code}: {errors}")
    expect({path: path.stat().st_mtime_ns for path in there} == there, "one was made again")
    away = _distance(_contents(folder), pictures)
    expect(away <= ROUNDING, f"{away} levels from an undisturbed run's pictures")
    left = sorted(path.name for path in (folder / "out").glob(".*.part*"))
    expect(not left, f"something was left: {left}")
    return f"{'killed' if ended else 'done'}; then what was missing"


@cache
def _undisturbed() -> tuple[dict[str, np.ndarray], int]:
    """The pictures of a file of prompts that nobody kills, and the lines of its journal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = _prepare(folder)
        run(folder, *BATCH)
        return _contents(folder), lines_of(journal)


def _prepare(folder: Path) -> Path:
    """Write a file of prompts; where its journal is going to be."""
    lines = [f"a barn --steps {2 + i % 2} --seed {i}\n" for i in range(12)]
    (folder / "prompts.txt").write_text("".join(lines))
    return folder / "out" / "prompts.txt.journal.jsonl"


def _contents(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.name: np.asarray(Image.open(path, formats=["PNG"])).astype(int)
        for path in pictures_in(folder)
    }


def _distance(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> int:
    """The largest difference of a pixel, in levels; 255 where the pictures are not the same ones."""
    if ours.keys() != theirs.keys():
        return 255
    return max(int(abs(ours[name] - theirs[name]).max()) for name in ours)


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
