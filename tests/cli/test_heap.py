"""diffgen.cli.heap: freed memory stays, so that pages are not cleared again and again."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from diffgen.cli.heap import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def blocks():
    for _ in range(20):
        torch.ones(4 << 20)  # 16 MiB
blocks()  # until the heap has settled where such a block lies
before = faults()
blocks()
print(faults() - before)
"""
PAGES = 20 * (16 << 20) // os.sysconf("SC_PAGE_SIZE")


def page_faults(word: str, **environment: str) -> int:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT, word],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told anything")
def test_memory_that_was_freed_is_used_again() -> None:
    assert page_faults("keep") < PAGES / 4


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's heap is told anything")
def test_what_a_user_settled_stays() -> None:
    settled = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert page_faults("keep", **settled) > PAGES / 2
