"""What the benchmarks share: alternating runs, the machine, its ceilings, tables, results.

Cases run in turns, A B C A B C, so that drift of the machine favours none; one round before the
first is not counted. Compare figures of one table only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffgen.device import peak_memory, pick_device, synchronize

Case = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of each counted run of one case, and the floating-point operations of a run."""

    name: str
    seconds: list[float]
    flops: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def arguments(description: str | None, **options: dict[str, Any]) -> argparse.Namespace:
    """`--runs`, `--threads`, `--device`, `--json`, and what a benchmark adds by name."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each case")
    parser.add_argument("--threads", type=int, help="torch's threads [default: its own choice]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    for name, settings in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    parsed = parser.parse_args()
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    return parsed


def measure(cases: Mapping[str, Case], *, runs: int) -> list[Timing]:
    """Every case `runs` times, in turns, without gradients."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    operations = {}
    with torch.inference_mode():
        for number in range(runs + 1):
            for name, case in cases.items():
                if number:
                    seconds[name].append(_timed(case))
                else:
                    operations[name] = _count(case)
    return [Timing(name, seconds[name], operations[name]) for name in cases]


def _timed(case: Case) -> float:
    synchronize(pick_device())
    start = time.perf_counter()
    case()
    synchronize(pick_device())
    return time.perf_counter() - start


def _count(case: Case) -> float:
    with FlopCounterMode(display=False) as counter:
        case()
    return float(counter.get_total_flops())


def gemm_ceiling(device: str, dtype: torch.dtype, *, side: int) -> float:
    """Operations a second of a square matrix product: what no network can beat."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    (timing,) = measure({"gemm": lambda: a @ b}, runs=5)
    return 2 * side**3 / min(timing.seconds)


def machine(device: str) -> dict[str, Any]:
    """Where the figures hold, and at which commit."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {
        "device": f"{device}, {name}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peak_memory_gib": round((peak_memory(torch.device(device)) or 0) / 2**30, 2),
        "commit": commit(),
    }


def processor() -> str:
    """What multiplies here: the widest instructions, or else the architecture."""
    if torch.cpu._is_amx_tile_supported():
        return f"{platform.machine()} with AMX"
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """The commit at hand, or `unknown`."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return "unknown"


def table(timings: Sequence[Timing], *, ceilings: Mapping[str, float] | None = None) -> str:
    """Markdown: times relative to the first row; `ceilings` are operations a second by case."""
    lines = ["| case | median, s | spread | times as fast | of the GEMM ceiling |"]
    lines.append("|---|---|---|---|---|")
    for timing in timings:
        ceiling = (ceilings or {}).get(timing.name)
        flops = timings[0].flops  # of the same work; packed layers are not counted
        share = f"{flops / timing.median / ceiling:.0%}" if ceiling else "-"
        lines.append(
            f"| {timing.name} | {timing.median:.4g} "
            f"| {min(timing.seconds):.4g} to {max(timing.seconds):.4g} "
            f"| {timings[0].median / timing.median:.2f} | {share} |"
        )
    return "\n".join(lines)


def report(
    title: str,
    timings: Sequence[Timing],
    options: argparse.Namespace,
    *,
    ceilings: Mapping[str, float] | None = None,
) -> None:
    """Print the machine and the table; write the JSON that was asked for."""
    shown = table(timings, ceilings=ceilings)
    figures = [asdict(timing) for timing in timings]
    publish(f"{title}, {options.runs} runs", shown, figures, options.json, device=options.device)


def publish(title: str, shown: str, figures: Any, path: Path | None, *, device: str) -> None:
    """Print a table and where it holds; write both and all figures to `path` as JSON."""
    where = machine(device)
    print(f"{title}\n{', '.join(f'{k} {v}' for k, v in where.items())}\n\n{shown}")
    if path:
        words = [Path(sys.argv[0]).name, *(word for word in sys.argv[1:])]
        result = {
            "title": title,
            "command": shlex.join(words),
            "date": datetime.date.today().isoformat(),
            "machine": where,
            "table": shown,
            "figures": figures,
        }
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
