"""A file of prompts against a loop over the command, and against diffusers in a loop.

    python scripts/bench_batch.py --lines 1000 --loop-lines 10 --steps 10

All draw storybook in float32 on the same threads. The loop over the command is measured on a few lines
and counted up. Memory is the resident size of the process, looked at once a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark import publish

ROOT = Path(__file__).resolve().parent.parent
STORYBOOK = ROOT / "diffgen" / "assets" / "storybook"
THINGS = ("barn", "cat", "boat", "house", "tree", "dog", "car")
COLOURS = ("red", "blue", "green", "yellow", "white")


@dataclass(frozen=True)
class Row:
    """Pictures a second of one case, loading included, and the resident MiB half-way and at most."""

    case: str
    batch: int | None
    speed: float
    middle: int = 0
    largest: int = 0


def prompts(lines: int) -> list[str]:
    """Lines that differ; each thing in each colour, again and again."""
    return [f"a {COLOURS[i % 5]} {THINGS[i % 7]}" for i in range(lines)]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "diffgen", "generate", "-q", "--dtype", "fp32", *arguments]


def file_run(folder: Path, lines: int, steps: int, batch: int) -> tuple[float, list[int]]:
    """Seconds of one run of a file, and the resident size in MiB, once a second."""
    text = "".join(f"{each} --seed {i}\n" for i, each in enumerate(prompts(lines)))
    file = folder / f"{batch}.txt"
    file.write_text(text)
    begun = time.monotonic()
    process = subprocess.Popen(
        command(
            *("--prompts", str(file), "--steps", str(steps), "--batch-size", str(batch)),
            *("-o", f"{folder}/{batch}/"),
        ),
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    sizes: list[int] = []
    watcher = threading.Thread(target=watch, args=(process, sizes))
    watcher.start()
    if process.wait():
        raise SystemExit("the run of the file failed")
    watcher.join()
    return time.monotonic() - begun, sizes


def watch(process: subprocess.Popen[bytes], sizes: list[int]) -> None:
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        sizes += [int(line.split()[1]) >> 10 for line in status.splitlines() if "VmRSS" in line]
        time.sleep(1.0)


def loop_run(folder: Path, lines: int, steps: int) -> float:
    """Seconds of as many commands, one a line."""
    begun = time.monotonic()
    for i, prompt in enumerate(prompts(lines)):
        arguments = ("--steps", str(steps), "--seed", str(i), "-o", f"{folder}/loop/")
        subprocess.run(
            command(prompt, *arguments),
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    return time.monotonic() - begun


DIFFUSERS = """
import json, sys, time
begun = time.monotonic()
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
model, steps, batch, folder, prompts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5])
pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, torch_dtype=torch.float32)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
for start in range(0, len(prompts), batch):
    part = prompts[start : start + batch]
    generators = [torch.Generator("cpu").manual_seed(start + i) for i in range(len(part))]
    images = pipe(part, num_inference_steps=steps, guidance_scale=4.0, generator=generators).images
    for i, image in enumerate(images):
        image.save(f"{folder}/{start + i}.png")
print(time.monotonic() - begun)
"""


def diffusers_run(folder: Path, lines: int, steps: int, batch: int) -> float:
    """Seconds of a plain loop over diffusers with the model loaded once."""
    target = folder / f"diffusers-{batch}"
    target.mkdir()
    arguments = [str(STORYBOOK), str(steps), str(batch), str(target), json.dumps(prompts(lines))]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DIFFUSERS, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def measured(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """A row for each case, as it is measured."""
    loop = loop_run(folder, given.loop_lines, given.steps) / given.loop_lines
    yield Row("a loop over the command", None, 1 / loop)
    for batch in map(int, given.batches.split(",")):
        seconds, sizes = file_run(folder, given.lines, given.steps, batch)
        middle = sizes[len(sizes) // 2] if sizes else 0
        yield Row("a file", batch, given.lines / seconds, middle, max(sizes, default=0))
        if not given.no_diffusers:
            other = diffusers_run(folder, given.lines, given.steps, batch)
            yield Row("diffusers in a loop", batch, given.lines / other)


def table(rows: Sequence[Row]) -> str:
    """Markdown; speeds also as a multiple of the first row's."""
    lines = ["| case | batch | pictures a second | times the first row | MiB half-way, at most |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        memory = f"{row.middle}, {row.largest}" if row.largest else "-"
        lines.append(
            f"| {row.case} | {row.batch or '-'} | {row.speed:.2f} "
            f"| {row.speed / rows[0].speed:.1f} | {memory} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--loop-lines", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--no-diffusers", action="store_true")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for row in measured(Path(name), given):
            rows.append(row)
            print(f"{row.case}, {row.batch}: {row.speed:.2f} a second", file=sys.stderr, flush=True)
    title = f"{given.lines} lines of prompts, storybook, {given.steps} steps, float32, one run of each in this order"
    publish(title, table(rows), [asdict(row) for row in rows], given.json, device="cpu")


if __name__ == "__main__":
    main()
