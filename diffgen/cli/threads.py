"""Set the number of a command's threads, and how they wait for each other.

OpenMP's threads spin while they wait. If another process needs the same cores, that keeps the
thread that all wait for from running. Threads that sleep instead lose a few microseconds at each
barrier, which on an idle machine slows the steps of a small model (scripts/bench_busy.py).
"""

from __future__ import annotations

import os
import sys

# GNU's, LLVM's and Intel's runtimes read the first; LLVM's and Intel's prefer the second.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CHOICES = (*PASSIVE, "GOMP_SPINCOUNT", "KMP_LIBRARY")  # any of these means that the user chose


def settle_threads(count: int | None = None) -> None:
    """Let threads sleep while they wait, unless the environment is set; `count` of them.

    Runtimes read the environment once, when torch is imported, so this comes first.
    """
    if not any(name in os.environ for name in CHOICES):
        os.environ |= PASSIVE
    if count is None:
        return
    os.environ |= {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
    if "torch" in sys.modules:  # too late for the environment
        sys.modules["torch"].set_num_threads(count)
