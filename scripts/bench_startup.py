"""How long a fresh process takes to its first picture, beside `import torch` and diffusers.

Every command runs `--runs` times, in turns so that drift favours none, after one run that warms
the page cache; `--cold` empties that before each (Linux, as root). Prints a Markdown table of wall and CPU seconds (median, lowest to highest), and
with `--json FILE` writes the raw numbers.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "diffgen" / "assets" / "storybook"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
DIFFUSERS = f"""
import sys
import torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained({str(MODEL)!r}, torch_dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
generator = torch.Generator("cpu").manual_seed(7)
picture = pipeline("red barn at sunset", num_inference_steps=int(sys.argv[1]), guidance_scale=4.0,
                   generator=generator).images[0]
picture.save("barn.png")
"""


def commands(folder: str, steps: str) -> dict[str, list[str]]:
    """What is measured, by name."""
    python, diffgen = [sys.executable, "-c"], [sys.executable, "-m", "diffgen"]
    generate = [*diffgen, "generate", "red barn at sunset", "--seed", "7", "-q"]
    generate += ["-o", f"{folder}/", "--overwrite"]
    return {
        "python -c pass": [*python, "pass"],
        "diffgen --help": [*diffgen, "--help"],
        "diffgen samplers": [*diffgen, "samplers"],
        "import torch": [*python, "import torch"],
        "diffgen generate": generate,
        f"diffgen generate --steps {steps}": [*generate, "--steps", steps],
        f"diffusers script, {steps} steps": [*python, DIFFUSERS, steps],
    }


def measure(command: list[str], folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system
    return wall, cpu - before.children_user - before.children_system


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", default="20", help="of the last two")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = commands(folder, arguments.steps)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
        warmed = arguments.runs > 1  # a single run is to be quick
        for run in range(arguments.runs + warmed):
            for name, command in measured.items():
                if arguments.cold:
                    DROP_CACHES.write_text("3")
                seconds = measure(command, folder)
                if run or not warmed:  # the first one warms the page cache
                    times[name].append(seconds)
    from benchmark import publish  # imports torch, which is among what is timed

    publish("Whole commands", table(times), times, arguments.json, device="cpu")


def table(times: dict[str, list[tuple[float, float]]]) -> str:
    """Markdown: one line per command, the last column relative to `import torch`."""
    unit = statistics.median(wall for wall, _ in times["import torch"])
    lines = ["| command | wall, s | spread | CPU, s | of `import torch` |", "|---|---|---|---|---|"]
    for name, runs in times.items():
        walls, cpus = zip(*runs, strict=True)
        median = statistics.median(walls)
        lines.append(
            f"| `{name}` | {median:.2f} | {min(walls):.2f}-{max(walls):.2f} "
            f"| {statistics.median(cpus):.2f} | {median / unit:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
