"""Tune the allocator for a program that loads a network once, then allocates the same sizes often.

glibc returns each large block to the system when it is freed, and the system clears the pages of
the next one: these page faults took a twentieth of the time of training. So freed memory is kept,
except while weights are read and packed, when no block is reused. Loaded objects are frozen, so
that Python's garbage collector does not scan them again during the run and at exit.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from diffgen.types import StepCallback, StepInfo

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
SMALLEST = 128 << 10  # bytes; glibc's own threshold before it has seen larger blocks freed
LARGEST = 32 << 20  # bytes; glibc takes no larger threshold for blocks of their own


def keep_freed_memory() -> None:
    """Keep freed memory from now on, if the C library is glibc and the user has not tuned it.

    For programs only: a library must not tune its host's heap.
    """
    _tell_malloc(
        {
            M_MMAP_THRESHOLD: LARGEST,
            M_TRIM_THRESHOLD: 2**31 - 1,
            M_TOP_PAD: 4 * LARGEST,
        }
    )


def return_freed_memory() -> None:
    """Return every large block to the system when it is freed, until `keep_freed_memory`."""
    _tell_malloc({M_MMAP_THRESHOLD: SMALLEST})


def keep_from_first_step(on_step: StepCallback) -> StepCallback:
    """Wrap step reports: keep freed memory from the first step on, after weights are packed."""

    def report(info: StepInfo) -> None:
        if info.index == 0:
            keep_freed_memory()
        on_step(info)

    return report


def _tell_malloc(settings: Mapping[int, int]) -> None:
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no mallopt
    if mallopt:
        for name, value in settings.items():
            mallopt(name, value)


@contextmanager
def loading_to_stay() -> Iterator[None]:
    """Freeze what is imported and made inside: it lives as long as the process.

    Not on failure, as a traceback keeps its functions' objects alive. The collector's state is
    restored.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_on:
            gc.enable()
