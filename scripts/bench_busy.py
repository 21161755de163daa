"""Pictures while other processes keep the cores busy, ours and diffusers'.

python scripts/bench_busy.py                   # idle, one, two and four busy processes
python scripts/bench_busy.py --hogs 0,2 --train

Every case is a fresh process that makes the same picture several times; cases take turns, so that
drift favours none. Ours runs as shipped (threads spin briefly, then sleep), with threads that sleep
at once (OMP_WAIT_POLICY=PASSIVE), with threads that spin (ACTIVE, close to what OpenMP does when
nobody tells it otherwise), and in one thread. The first picture of a process is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark import publish

MODEL = Path(__file__).resolve().parent.parent / "diffgen" / "assets" / "storybook"
HOG = "while True: pass"
OURS = """
import sys, time
from diffgen.cli.threads import settle_threads
settle_threads(int(sys.argv[2]) or None)
from diffgen import Engine, GenerateRequest
engine = Engine.load("storybook")
request = GenerateRequest(prompts=["red barn at sunset"], seed=7, steps=int(sys.argv[3]))
def draw():
    list(engine.generate(request))
"""
THEIRS = f"""
import sys, time
import torch
from diffusers import StableDiffusionPipeline
dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
pipeline = StableDiffusionPipeline.from_pretrained({str(MODEL)!r}, torch_dtype=dtype)
pipeline.set_progress_bar_config(disable=True)
def draw():
    generator = torch.Generator("cpu").manual_seed(7)
    pipeline("red barn at sunset", num_inference_steps=int(sys.argv[3]), guidance_scale=4.0, generator=generator)
"""
TRAINING = """
import sys, time
from diffgen.cli.threads import settle_threads
settle_threads(int(sys.argv[2]) or None)
import torch
from diffgen.models.build import build_empty
from diffgen.models.config import UNetConfig
from diffgen.models.unet import UNet
from diffgen.types import Conditioning
torch.manual_seed(0)
unet = UNet(UNetConfig(channels=(64, 128), blocks=(2, 2), depth=(0, 1), num_heads=(1, 2), context_dim=128))
optimizer = torch.optim.AdamW(unet.parameters())
x, t, cond = torch.randn(16, 4, 16, 16), torch.full((16,), 500), Conditioning(torch.randn(16, 16, 128))
def draw():
    unet(x, t, cond).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
TIMED = """
draw()
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    draw()
    print(time.perf_counter() - start)
"""
SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}
SPINNING = {"OMP_WAIT_POLICY": "ACTIVE"}
CASES: dict[str, tuple[str, int, dict[str, str]]] = {
    "diffgen": (OURS, 0, {}),
    "diffgen, sleeping": (OURS, 0, SLEEPING),
    "diffgen, spinning": (OURS, 0, SPINNING),
    "diffgen, one thread": (OURS, 1, {}),
    "diffusers": (THEIRS, 0, {}),
}
TRAINING_CASES = {
    "a training step": (TRAINING, 0, {}),
    "a training step, sleeping": (TRAINING, 0, SLEEPING),
    "a training step, spinning": (TRAINING, 0, SPINNING),
}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute for as long as the block runs."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def seconds(
    program: str, threads: int, environment: dict[str, str], runs: int, steps: int
) -> list[float]:
    """Seconds of each counted run of one fresh process."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    command = [sys.executable, "-c", program + TIMED, str(runs), str(threads), str(steps)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=kept | environment
    )
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """Measure and print a Markdown table, a row for each case, a column for each load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hogs", default="0,1,2,4", help="numbers of busy processes")
    parser.add_argument("--runs", type=int, default=5, help="counted pictures of each process")
    parser.add_argument("--turns", type=int, default=3, help="processes of each case and load")
    parser.add_argument("--steps", type=int, default=10, help="of each picture")
    parser.add_argument("--train", action="store_true", help="training steps as well")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="these rows alone")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    loads = [int(word) for word in options.hogs.split(",")]
    cases = {name: CASES[name] for name in options.cases or CASES}
    cases |= TRAINING_CASES if options.train else {}
    times: dict[str, dict[int, list[float]]] = {
        name: {load: [] for load in loads} for name in cases
    }
    for _ in range(options.turns):
        for load in loads:
            with busy(load):
                for name, case in cases.items():
                    times[name][load] += seconds(*case, options.runs, options.steps)
    title = f"A storybook picture of {options.steps} steps beside busy processes, seconds"
    publish(title, table(times, loads), times, options.json, device="cpu")


def table(times: dict[str, dict[int, list[float]]], loads: list[int]) -> str:
    """Markdown; after the first column, each figure also as a multiple of the first."""
    lines = ["| | " + " | ".join(f"{load} busy" for load in loads) + " |"]
    lines.append("|---" * (len(loads) + 1) + "|")
    for name, by_load in times.items():
        unit = statistics.median(by_load[loads[0]])
        cells = [
            f"{(middle := statistics.median(found)):.3g} ({min(found):.3g} to {max(found):.3g}), "
            f"{middle / unit:.1f} times"
            for found in by_load.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
