"""Memory of the process that a step frees, and the next one asks for again.

glibc hands the top of its heap back to the system as soon as a few megabytes of it are free, as
after each backward pass; asked for again, it comes page by page, each cleared by the system: up to
a tenth of a small model's step (benchmarks/NOTES.md). Where there is no glibc, nothing is done.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 32 * 2**20  # bytes: what is larger never comes from the heap
PLENTY = 2**30  # bytes that may be free at the top


@contextmanager
def kept_heap() -> Iterator[None]:
    """Within, what is freed stays with the process, up to a gigabyte; at the end it is given back.

    For the whole process. Afterwards glibc keeps 64 MB, as it does by itself once a block of 32 MB
    has been freed.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, LARGEST)
    libc.mallopt(TRIM_THRESHOLD, PLENTY)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
        libc.malloc_trim(2 * LARGEST)


@cache
def _glibc() -> Any:
    """The C library of this process, if it is one that can be told; else None."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
