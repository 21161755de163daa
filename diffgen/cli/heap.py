"""The C library's heap, told to keep what is freed: a network asks for the same sizes again.

glibc gives large blocks back to the system at once, and the system clears each page of the next
ones: 48,000 page faults a second while storybook trained on two cores, and 5 % of the time.
"""

from __future__ import annotations

import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
LARGEST = 32 << 20  # bytes; glibc takes no larger threshold for blocks of their own


def keep_freed_memory() -> None:
    """Settle it for this process, where its C library is glibc and nobody has settled it before.

    For programs only: a library has no business with the heap of its host.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 4 * LARGEST)
