"""Set the number of a command's threads, and how they wait for each other.

OpenMP's threads spin while they wait. If another process needs the same cores, that keeps the
thread that all wait for from running. Threads that sleep at once lose some time at each barrier,
which on an idle machine slows a small model by up to a half. So they spin briefly, then sleep
(scripts/bench_busy.py).
"""

from __future__ import annotations

import os
import sys

# GNU's runtime prefers the first, LLVM's and Intel's the second; the third is for all others. Of 1000,
# 3000 and 10,000 turns, the first saved an idle machine little and the last cost a busy one most.
BRIEFLY = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "PASSIVE"}
CHOICES = (*BRIEFLY, "KMP_LIBRARY")  # any of these means that the user chose


def settle_threads(count: int | None = None) -> None:
    """Let threads sleep after a brief wait, unless the environment is set; `count` of them.

    Runtimes read the environment once, when torch is imported, so this comes first.
    """
    if not any(name in os.environ for name in CHOICES):
        os.environ |= BRIEFLY
    if count is None:
        return
    os.environ |= {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
    if "torch" in sys.modules:  # too late for the environment
        sys.modules["torch"].set_num_threads(count)
