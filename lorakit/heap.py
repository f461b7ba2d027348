"""Memory of the process that a step frees, and the next one asks for again.

glibc hands the top of its heap back to the system as soon as a few megabytes of it are free, as
after each backward pass; asked for again, it comes page by page, each cleared by the system: some
milliseconds of a small model's step (benchmarks/NOTES.md). Where there is no glibc, or somebody has
told it already what to keep (MALLOC_...), nothing is done.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 32 * 2**20  # bytes: what is larger never comes from the heap
PLENTY = 2**30  # bytes that may be free at the top

_lock = threading.Lock()
_within = 0  # how many are within `kept_heap`


@contextmanager
def kept_heap() -> Iterator[None]:
    """Within, what the heap's top frees stays with the process, up to a gigabyte.

    It is the whole process's, and given back when the last who is within has left; from then on
    glibc keeps 64 MB, as it does by itself once a block of 32 MB has been freed. A thread but the
    first has heaps of its own, of 64 MB each, and keeps less.
    """
    if _glibc() is None:
        yield
        return
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _within
    libc = _glibc()
    with _lock:
        _within += change
        if _within == 1 and change == 1:
            libc.mallopt(MMAP_THRESHOLD, LARGEST)
            libc.mallopt(TRIM_THRESHOLD, PLENTY)
        elif _within == 0:
            libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
            libc.malloc_trim(2 * LARGEST)


@cache
def _glibc() -> Any:
    """The C library of this process, if it is one that can be told; else None."""
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
