"""What a step frees is there for the next one, and is given back after the last."""

import pytest
import torch

from lorakit import heap
from lorakit.heap import LARGEST, PLENTY, kept_heap

needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="needs glibc's malloc")


@needs_glibc
def test_memory_freed_within_is_not_asked_for_again(tmp_path):
    resource = pytest.importorskip("resource")

    def faults() -> int:
        """Pages that the system had to clear for a step that frees all it takes."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        taken = [torch.ones(2**20) for _ in range(32)]  # 4 MB each
        del taken
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_heap():
        faults()
        within = min(faults() for _ in range(3))
    assert within < 100
    assert faults() > 5000  # what was kept has been given back


def test_an_error_within_ends_it_as_well(monkeypatch):
    told = []

    class Libc:
        def mallopt(self, what, value):
            told.append((what, value))

        def malloc_trim(self, pad):
            told.append(("trim", pad))

    monkeypatch.setattr(heap, "_glibc", Libc)
    with pytest.raises(KeyError), kept_heap():
        assert told == [(heap.MMAP_THRESHOLD, LARGEST), (heap.TRIM_THRESHOLD, PLENTY)]
        raise KeyError
    assert told[2:] == [(heap.TRIM_THRESHOLD, 2 * LARGEST), ("trim", 2 * LARGEST)]


def test_where_there_is_no_glibc_nothing_is_done(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    with kept_heap():
        pass
