"""A file of prompts against a loop over the command, and against diffusers in a loop.

    python scripts/bench_batch.py --lines 1000 --loop-lines 10 --steps 10

All draw storybook in float32 on the same threads. The loop over the command is measured on a few lines
and counted up. Memory is the largest resident size of the process, over the run of the file.
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
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORYBOOK = ROOT / "diffgen" / "assets" / "storybook"
THINGS = ("barn", "cat", "boat", "house", "tree", "dog", "car")
COLOURS = ("red", "blue", "green", "yellow", "white")


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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--loop-lines", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--no-diffusers", action="store_true")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop = loop_run(folder, given.loop_lines, given.steps) / given.loop_lines
        print(f"loop over the command: {1 / loop:.2f} pictures a second", flush=True)
        for batch in map(int, given.batches.split(",")):
            seconds, sizes = file_run(folder, given.lines, given.steps, batch)
            middle = sizes[len(sizes) // 2] if sizes else 0
            print(
                f"file, batch {batch}: {given.lines / seconds:.2f} pictures a second, "
                f"{loop * given.lines / seconds:.1f} times the loop; "
                f"{middle} MiB in the middle, {max(sizes, default=0)} at most",
                flush=True,
            )
            if not given.no_diffusers:
                other = diffusers_run(folder, given.lines, given.steps, batch)
                print(
                    f"diffusers, batch {batch}: {given.lines / other:.2f} pictures a second; "
                    f"the file is {other / seconds:.2f} times as fast",
                    flush=True,
                )


if __name__ == "__main__":
    main()
