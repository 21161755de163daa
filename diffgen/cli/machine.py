"""Facts about this machine and its installed packages, for `diffgen doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from diffgen import __version__

PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"),
    *("pillow", "numpy", "triton"),
)
# Variables for the number of threads and how they wait.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_WAIT_POLICY"),
    *("KMP_BLOCKTIME", "KMP_AFFINITY", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "OMP_PROC_BIND"),
)
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory; None if unknown."""

    total: int | None
    free: int | None  # available without swapping
    swapped: int | None


@dataclass(frozen=True, slots=True)
class Cores:
    """The number of cores, how many this process may use, and their load."""

    all: int
    usable: int
    quota: float | None  # the container's CPU quota, in cores
    load: float | None  # load average of the last minute


def versions() -> dict[str, str | None]:
    """Versions of diffgen, Python and its dependencies; None for absent ones."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"diffgen": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """The CPU's model name, or its architecture if that is unknown."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> Cores:
    count = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Cores(count, usable, _quota(), load)


def _quota() -> float | None:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html: `MAX PERIOD` in microseconds."""
    with suppress(OSError, ValueError):
        most, period = (CGROUP / "cpu.max").read_text().split()
        return None if most == "max" else int(most) / int(period)
    return None


def memory() -> Memory:
    """The system's memory, or the container's if that has less."""
    table = _meminfo()
    total, free = table.get("MemTotal"), table.get("MemAvailable")
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())
        left = limit - int((CGROUP / "memory.current").read_text())
        total = limit if total is None else min(total, limit)
        free = max(0, left) if free is None else max(0, min(free, left))
    if total is None and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    swap = table.get("SwapTotal")
    return Memory(total, free, None if swap is None else swap - table.get("SwapFree", swap))


def _meminfo() -> dict[str, int]:
    found = {}
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            number, _, unit = rest.strip().partition(" ")
            if number.isdigit() and unit == "kB":
                found[name] = int(number) * 1024
    return found


def free_disk(path: Path) -> int | None:
    """Bytes free at a path, which need not exist yet."""
    with suppress(OSError):
        there = next((each for each in (path, *path.parents) if each.exists()), path)
        return shutil.disk_usage(there).free
    return None


def folder_size(folder: Path) -> int | None:
    """Bytes of the files below, counting links only at their target; None without a folder."""
    if not folder.is_dir():
        return None
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            with suppress(OSError):
                if not file.is_symlink():
                    yield file.stat().st_size


def thread_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment's variables for threads."""
    return {name: environment[name] for name in THREAD_VARIABLES if name in environment}
