"""Loading a model, ours and diffusers', each time in a fresh process: seconds and peak memory.

    python scripts/bench_load.py                  # storybook
    python scripts/bench_load.py --model ~/sd15

Imports are not counted; the page cache is warm after the first round.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

from benchmark import Timing, arguments, publish, table

from diffgen.engine.model import DEFAULT_MODEL, Model

SHARED = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from diffgen.device import peak_memory
CPU = torch.device("cpu")
"""
END = """
peak = peak_memory(CPU)
print(json.dumps({"seconds": time.perf_counter() - start, "peak": peak - before}))
"""
MARK = """
before = peak_memory(CPU)
start = time.perf_counter()
"""
OURS = (
    SHARED
    + "from diffgen.engine.engine import Engine\n"
    + MARK
    + "engine = Engine.load(sys.argv[1], device=sys.argv[2], dtype='fp32')\n"
    + END
)
THEIRS = (
    SHARED
    + "from diffusers import DiffusionPipeline\n"
    + MARK
    + "DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32).to(sys.argv[2])\n"
    + END
)


def run(program: str, *words: str) -> dict[str, float]:
    """What one process prints at its end."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words], check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure and print."""
    options = arguments(
        __doc__, model={"default": DEFAULT_MODEL, "help": "a name or folder in diffusers layout"}
    )
    folder = str(Model.open(options.model).checkpoint.source)
    programs = {"diffusers": THEIRS, "diffgen": OURS}
    warmed = options.runs > 1  # a single run is to be quick
    rounds = [
        {name: run(program, folder, options.device) for name, program in programs.items()}
        for _ in range(options.runs + warmed)
    ][warmed:]
    timings = [Timing(name, [figures[name]["seconds"] for figures in rounds]) for name in programs]
    lines = [table(timings), "\n| case | memory at its peak, beyond the imports |\n|---|---|"]
    for name in programs:
        peak = max(figures[name]["peak"] for figures in rounds) / 2**20
        lines.append(f"| {name} | {peak:.0f} MiB |")
    figures = [asdict(timing) for timing in timings]
    title = f"Loading {options.model} in fp32, {options.runs} runs"
    publish(title, "\n".join(lines), figures, options.json, device=options.device)


if __name__ == "__main__":
    main()
